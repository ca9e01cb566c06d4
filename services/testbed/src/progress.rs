//! Progress on stderr: a bar on a terminal, otherwise one line per stage.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar of this length; it is hidden if stderr is not a terminal.
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

/// Reports the start of a stage: in the bar on a terminal, otherwise as a line.
pub fn stage(bar: &ProgressBar, text: &str) {
    if std::io::stderr().is_terminal() {
        bar.set_message(text.to_owned());
    } else {
        eprintln!("{text}");
    }
}
