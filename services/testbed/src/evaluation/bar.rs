//! The progress of an evaluation.

use indicatif::ProgressBar;
use loadtest::plan::{Phase, Progress};

use crate::progress::{self, stage};

/// A bar over the seconds of load.
pub struct Bar {
    bar: ProgressBar,
    done_s: u64,
}

impl Bar {
    pub fn new(length_s: u64) -> Self {
        Self { bar: progress::bar(length_s, "starting"), done_s: 0 }
    }

    pub fn stage(&self, text: &str) {
        stage(&self.bar, text);
    }

    /// Names a part of the load, and moves with it.
    pub fn follow(&self, label: &str) -> impl FnMut(&Progress) + use<> {
        self.stage(label);
        let (bar, done_s, label) = (self.bar.clone(), self.done_s, label.to_owned());
        move |now| {
            bar.set_position(done_s + u64::from(now.elapsed_s));
            let what = if now.phase == Phase::WarmUp { "warm-up" } else { "measuring" };
            bar.set_message(format!("{label}: {what}, {}/s good", now.good));
        }
    }

    /// A part of the load is over.
    pub fn done(&mut self, seconds: u64) {
        self.done_s += seconds;
    }

    /// More load than was planned.
    pub fn lengthen(&self, seconds: u64) {
        self.bar.inc_length(seconds);
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
