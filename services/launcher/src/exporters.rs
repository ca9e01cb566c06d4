//! Prometheus's exporters for servers that have no metrics of their own, and for the machine. Each is optional: without its program the
//! stack runs, and its dashboard panels are empty.

use std::{net::SocketAddr, time::Duration};

use tokio::net::TcpStream;

use crate::{ChildId, Signal, Spec, Stack, free_port, mariadb, programs, redis};

/// The name in Debian's package, then that of the project's own release.
pub const NODE: &[&str] = &["prometheus-node-exporter", "node_exporter"];
pub const REDIS: &[&str] = &["prometheus-redis-exporter", "redis_exporter"];
pub const MYSQL: &[&str] = &["prometheus-mysqld-exporter", "mysqld_exporter"];
const READY_DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Exporter {
    pub child: ChildId,
    /// Where `/metrics` is.
    pub address: SocketAddr,
}

/// CPU, memory, disks and load of this machine; `None`: the program is not installed.
///
/// # Errors
/// It ends, or does not listen within 30 s.
pub async fn node(stack: &mut Stack) -> anyhow::Result<Option<Exporter>> {
    let collectors = ["disable-defaults", "cpu", "meminfo", "loadavg", "diskstats"];
    let collectors = collectors.map(|name| format!("--collector.{name}"));
    let Some(program) = programs::find_program(NODE) else { return Ok(None) };
    start(stack, Spec::new("node-exporter", program), collectors.to_vec()).await.map(Some)
}

/// # Errors
/// As `node`.
pub async fn redis(stack: &mut Stack, server: &redis::Redis) -> anyhow::Result<Option<Exporter>> {
    let Some(program) = programs::find_program(REDIS) else { return Ok(None) };
    start(stack, Spec::new("redis-exporter", program), vec![format!("--redis.addr={}", server.url)]).await.map(Some)
}

/// `name`: of the server. `None` also for versions from 0.15 on: they refuse an account without a password.
///
/// # Errors
/// As `node`, or the program does not say its version.
pub async fn mysql(stack: &mut Stack, name: &str, server: &mariadb::MySql) -> anyhow::Result<Option<Exporter>> {
    let Some(program) = programs::find_program(MYSQL) else { return Ok(None) };
    if !takes_data_source(&programs::version_text(&program, "--version")?) {
        return Ok(None);
    }
    // Only status and variables: the others need rights or tables that these servers do not have.
    let off =
        ["slave_status", "info_schema.innodb_cmp", "info_schema.innodb_cmpmem", "info_schema.query_response_time"];
    let args = off.map(|collector| format!("--no-collect.{collector}")).to_vec();
    let source = format!("root@unix({})/", server.socket.display());
    let spec = Spec::new(format!("{name}-exporter"), program).env("DATA_SOURCE_NAME", source);
    start(stack, spec, args).await.map(Some)
}

/// `mysqld_exporter, version 0.14.0 (branch: …`
fn takes_data_source(version: &str) -> bool {
    let minor = version.split_once("version 0.").and_then(|(_, rest)| rest.split('.').next()?.parse::<u32>().ok());
    minor.is_some_and(|minor| minor < 15)
}

async fn start(stack: &mut Stack, spec: Spec, args: Vec<String>) -> anyhow::Result<Exporter> {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    // Nothing to save: it may end at once.
    let spec = spec.args(args).args([format!("--web.listen-address={address}")]).stop_signal(Signal::SIGKILL);
    let child = stack.spawn(spec)?;
    stack.wait_ready(child, READY_DEADLINE, || async move { TcpStream::connect(address).await.is_ok() }).await?;
    Ok(Exporter { child, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_exporters_of_mysql_take_an_account_without_a_password() {
        assert!(takes_data_source("mysqld_exporter, version 0.14.0 (branch: debian/sid)"));
        assert!(!takes_data_source("mysqld_exporter, version 0.15.1 (branch: HEAD)") && !takes_data_source(""));
    }
}
