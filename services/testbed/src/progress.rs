//! Progress on stderr: bars on a terminal, otherwise a line when a stage begins.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar of this length, hidden where stderr is no terminal.
pub fn bar(length: u64, message: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    // The template is a constant; a bar without style still works.
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {msg:40!} [{bar:30}] {percent:>3} %  {elapsed} / ~{duration}")
    {
        bar.set_style(style.progress_chars("━╸ "));
    }
    bar.set_message(message.to_owned());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// Says what begins now: above the bar on a terminal, as a line of its own elsewhere.
pub fn stage(bar: &ProgressBar, text: &str) {
    if std::io::stderr().is_terminal() {
        bar.set_message(text.to_owned());
    } else {
        eprintln!("{text}");
    }
}
