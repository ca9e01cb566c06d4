//! Progress on stderr: a bar on a terminal, otherwise one line per stage, and one every ten seconds of load.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use loadtest::plan::{Phase, Progress};
use report::numbers::{count, ms};

/// Without a terminal, load is reported once in as many seconds.
const LINE_EVERY_S: u32 = 10;

/// A bar of this length; it is hidden if stderr is not a terminal.
pub fn bar(length: u64, message: &str) -> ProgressBar {
    styled(length, message, "{spinner} {msg:40!} [{bar:30}] {percent:>3} %  {elapsed} / ~{duration}")
}

/// A bar over seconds of load, with a line below it for the figures of the last second.
pub fn load_bar(seconds: u64) -> ProgressBar {
    styled(seconds, "starting", "{spinner} [{bar:30}] {percent:>3} %  {elapsed} / ~{duration}\n  {wide_msg}")
}

fn styled(length: u64, message: &str, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    // The template is a constant; a bar without style still works.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸ "));
    }
    bar.set_message(message.to_owned());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// Reports the start of a stage: in the bar on a terminal, otherwise as a line.
pub fn stage(bar: &ProgressBar, text: &str) {
    if std::io::stderr().is_terminal() {
        bar.set_message(text.to_owned());
    } else {
        eprintln!("{text}");
    }
}

/// Reports each second of a step: in the bar on a terminal, otherwise as a line every ten seconds. `done_s`: seconds of load before the
/// step.
pub fn follow(bar: &ProgressBar, label: &str, done_s: u64) -> impl FnMut(&Progress) + use<> {
    let (bar, label, on_terminal) = (bar.clone(), label.to_owned(), std::io::stderr().is_terminal());
    move |now| {
        bar.set_position(done_s + u64::from(now.elapsed_s));
        if on_terminal {
            bar.set_message(figures(&label, now));
        } else if now.elapsed_s.is_multiple_of(LINE_EVERY_S) {
            eprintln!("{}", figures(&label, now));
        }
    }
}

/// The last second in a line.
fn figures(label: &str, now: &Progress) -> String {
    let phase = if now.phase == Phase::WarmUp { ", warm-up" } else { "" };
    let mut text = format!(
        "{label}, {}/{} s{phase}: offered {}/s, good {}/s, errors {}/s",
        now.elapsed_s,
        now.total_s,
        count(now.offered_per_s),
        count(now.good as f64),
        count(now.errors as f64)
    );
    let (tail, tail_ms) = tail(now);
    if let (Some(p50_ms), Some(tail_ms)) = (now.p50_ms, tail_ms) {
        text.push_str(&format!(", p50 {} ms, {tail} {} ms", ms(p50_ms), ms(tail_ms)));
    }
    text
}

/// The 99th percentile, or the longest latency of a second with too few requests for it.
fn tail(now: &Progress) -> (&'static str, Option<f64>) {
    match now.p99_ms {
        Some(p99_ms) => ("p99", Some(p99_ms)),
        None => ("max", now.max_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second() -> Progress {
        Progress {
            phase: Phase::Measure,
            elapsed_s: 20,
            total_s: 75,
            sent: 4_000,
            good: 3_412,
            errors: 12,
            p99_ms: Some(2_904.0),
            p50_ms: Some(380.2),
            max_ms: Some(3_000.4),
            offered_per_s: 4_000.0,
        }
    }

    #[test]
    fn a_second_is_one_line() {
        assert_eq!(
            figures("baseline, 4000 users", &second()),
            "baseline, 4000 users, 20/75 s: offered 4,000/s, good 3,412/s, errors 12/s, p50 380 ms, p99 2,904 ms"
        );
        let few = Progress { phase: Phase::WarmUp, good: 987, p99_ms: None, ..second() };
        assert_eq!(
            figures("x", &few),
            "x, 20/75 s, warm-up: offered 4,000/s, good 987/s, errors 12/s, p50 380 ms, max 3,000 ms"
        );
    }

    #[test]
    fn a_second_without_answers_has_no_latency() {
        let none = Progress { good: 0, errors: 0, p50_ms: None, p99_ms: None, max_ms: None, ..second() };
        assert_eq!(figures("x", &none), "x, 20/75 s: offered 4,000/s, good 0/s, errors 0/s");
    }
}
