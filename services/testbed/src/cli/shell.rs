//! `completions` and `man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Print a completion script for a shell
#[derive(Args)]
#[command(after_help = "Examples:
  ./testbed completions bash > ~/.local/share/bash-completion/completions/testbed
  ./testbed completions zsh > ~/.zfunc/_testbed      with fpath+=(~/.zfunc) before compinit in ~/.zshrc
  ./testbed completions fish > ~/.config/fish/completions/testbed.fish")]
pub struct CompletionsArgs {
    /// Shell to write the script for
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Write the manual pages: all of them into a directory, or the main page to standard output
#[derive(Args)]
#[command(after_help = "Examples:
  ./testbed man ~/.local/share/man/man1      installs them: man testbed, man testbed-evaluate
  ./testbed man | man -l -                   shows the main page")]
pub struct ManArgs {
    /// Directory for the pages; it is created if it does not exist
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
