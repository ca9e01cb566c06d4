//! Finds programs and their versions.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

/// The first of these programs that is installed, in $PATH or in the directories of system programs, which Debian leaves out of a user's
/// $PATH.
pub fn find_program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(system).collect();
    names.iter().find_map(|name| dirs.iter().map(|dir| dir.join(name)).find(|file| is_executable(file)))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// As `find_program`, with an error that says what to install.
pub(crate) fn require(names: &[&str], package: &str) -> anyhow::Result<PathBuf> {
    find_program(names)
        .with_context(|| format!("{} is not installed (Debian, Ubuntu: apt-get install {package})", names.join(" or ")))
}

/// The program's version text, from stdout or stderr.
pub(crate) fn version_text(program: &Path, flag: &str) -> anyhow::Result<String> {
    let output =
        Command::new(program).arg(flag).output().with_context(|| format!("cannot run {}", program.display()))?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_installed_name_wins() {
        let sh = find_program(&["no-such-program", "sh"]).unwrap();
        assert!(sh.ends_with("sh"), "{sh:?}");
        assert_eq!(find_program(&["no-such-program"]), None);
        let error = require(&["no-such-program"], "nothing").unwrap_err().to_string();
        assert!(error.contains("no-such-program is not installed") && error.contains("apt-get install nothing"));
    }
}
