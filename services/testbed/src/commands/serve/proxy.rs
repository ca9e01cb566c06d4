//! Configuration of faultproxy: from a file, or from flags that may contain host names.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
};

use anyhow::{Context, bail};
use faultproxy::{Config, DEFAULT_MAX_CONNECTIONS, Law, Route};
use loadtest::scenario::Scenario;

use crate::stack::service;

/// `at`: listen address for the first server, and address of the admin API.
pub fn config(
    file: Option<&Path>,
    mysql: &[String],
    at: Option<(SocketAddr, SocketAddr)>,
    scenario: Option<&str>,
) -> anyhow::Result<Config> {
    if let Some(file) = file {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        return toml::from_str(&text).with_context(|| format!("{} is not valid", file.display()));
    }
    let Some((first, admin)) = at else { bail!("faultproxy needs --config, or --mysql with --listen and --admin") };
    let law = scenario.map(Scenario::load).transpose()?.map_or(Law::None, |scenario| service::law(scenario.law));
    let listeners = routes(mysql, first)?;
    Ok(Config { listeners, links: Vec::new(), admin, law, max_connections: DEFAULT_MAX_CONNECTIONS })
}

fn routes(mysql: &[String], first: SocketAddr) -> anyhow::Result<Vec<Route>> {
    let ports = first.port()..=u16::MAX;
    if mysql.len() > ports.len() {
        bail!("--listen {first}: {} servers need as many ports, starting with this one", mysql.len());
    }
    let routes = mysql.iter().zip(ports).map(|(server, port)| {
        // Resolved once, at the start.
        let addresses = server.to_socket_addrs().with_context(|| format!("--mysql: cannot resolve {server:?}"))?;
        // Prefers IPv4: a server listens there by default.
        let upstream =
            addresses.min_by_key(SocketAddr::is_ipv6).with_context(|| format!("--mysql: {server:?} has no address"))?;
        Ok(Route::new(SocketAddr::new(first.ip(), port), upstream))
    });
    routes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn servers_take_the_ports_in_turn() {
        let servers = ["127.0.0.1:7001".to_owned(), "localhost:7002".to_owned()];
        let at = Some((address("127.0.0.9:3306"), address("127.0.0.9:9090")));
        let config = config(None, &servers, at, Some("article")).unwrap();
        let listen: Vec<_> = config.listeners.iter().map(|route| route.listen.to_string()).collect();
        assert_eq!(listen, ["127.0.0.9:3306", "127.0.0.9:3307"]);
        let upstream: Vec<_> = config.listeners.iter().map(|route| route.upstream.to_string()).collect();
        assert!(upstream[0] == "127.0.0.1:7001" && upstream[1].ends_with(":7002"), "{upstream:?}");
        assert_eq!(config.law, Law::Linear { base_ms: 74.0, slope_ms: 0.2, crosstalk_ms: 0.0, spread: 0.3 });
    }

    #[test]
    fn invalid_flags_are_named() {
        let at = Some((address("127.0.0.1:65535"), address("127.0.0.1:9090")));
        let two = ["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
        assert!(config(None, &two, at, None).unwrap_err().to_string().contains("2 servers"));
        assert!(config(None, &["nowhere".to_owned()], at, None).unwrap_err().to_string().contains("nowhere"));
        assert!(config(None, &two[..1], at, Some("no-such")).is_err());
    }
}
