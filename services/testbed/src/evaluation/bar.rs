//! The progress of an evaluation.

use indicatif::ProgressBar;
use loadtest::plan::Progress;

use crate::progress::{self, stage};

/// A bar over the seconds of load.
pub struct Bar {
    bar: ProgressBar,
    done_s: u64,
}

impl Bar {
    pub fn new(length_s: u64) -> Self {
        Self { bar: progress::load_bar(length_s), done_s: 0 }
    }

    pub fn stage(&self, text: &str) {
        stage(&self.bar, text);
    }

    /// Names a part of the load, and moves with it.
    pub fn follow(&self, label: &str) -> impl FnMut(&Progress) + use<> {
        self.stage(label);
        progress::follow(&self.bar, label, self.done_s)
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
