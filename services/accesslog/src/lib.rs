//! Counts the gateway's answers. nginx sends one datagram per request (`access_log syslog:…`, format `counted` in
//! deploy/nginx/gateway/http.conf); this process turns them into metrics. Only the gateway sees every request: no replica counts the 502
//! of a dead replica.
//!
//! `line` reads a datagram, `metrics` counts it, `drops` reports the datagrams that the kernel dropped.

mod drops;
mod line;
mod metrics;

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use anyhow::Context;
use prometheus::Registry;
use runtime::{AdminPort, Endpoint, Readiness};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::{drops::Drops, line::Line, metrics::Metrics};

/// Holds a second of datagrams at about 5,000 requests/s; the kernel counts 768 bytes and more for each. It may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// A line of the format is below 100 bytes.
const MAX_DATAGRAM_BYTES: usize = 1024;
/// Datagrams read without a pause for the other tasks of this thread.
const BATCH: usize = 256;
/// How often the kernel's counter of dropped datagrams is read.
const TICK: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct Config {
    /// UDP, for nginx.
    pub listen: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
}

/// Counts until `shutdown`.
///
/// # Errors
/// An address cannot be bound, or the socket failed.
pub async fn serve(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).context("metrics")?;
    let socket = bind(config.listen).with_context(|| format!("cannot listen on {} (UDP)", config.listen))?;
    let mut drops = Drops::of(&socket, metrics.dropped.clone());
    let listener =
        Endpoint::Tcp(config.admin).bind().await.with_context(|| format!("cannot listen on {}", config.admin))?;
    let readiness = Readiness::starting("", &shutdown);
    readiness.ready();
    let admin = AdminPort::open(listener, &readiness, &registry)?;
    let mut tick = tokio::time::interval(TICK);
    let counted = async {
        loop {
            tokio::select! {
                readable = socket.readable() => {
                    readable?;
                    read(&socket, &metrics)?;
                    tokio::task::yield_now().await;
                }
                _ = tick.tick() => drops.update(),
            }
        }
    };
    let result: std::io::Result<()> = tokio::select! {
        result = counted => result,
        () = shutdown.cancelled() => Ok(()),
    };
    admin.close().await?;
    result.context("cannot read the gateway's datagrams")
}

fn bind(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

fn read(socket: &UdpSocket, metrics: &Metrics) -> std::io::Result<()> {
    let mut buffer = [0; MAX_DATAGRAM_BYTES];
    for _ in 0..BATCH {
        match socket.try_recv(&mut buffer) {
            Ok(length) => match Line::parse(&buffer[..length]) {
                Some(line) => metrics.count(&line),
                None => metrics.malformed.inc(),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_are_counted_by_route_and_status() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let nginx = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        nginx.connect(socket.local_addr().unwrap()).await.unwrap();
        for text in ["<190>Nov 29 12:00:00 gateway: 502 0.000 /recommendations", "nonsense"] {
            nginx.send(text.as_bytes()).await.unwrap();
        }
        while metrics.malformed.get() == 0 {
            socket.readable().await.unwrap();
            read(&socket, &metrics).unwrap();
        }
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for series in [
            "gateway_request_duration_seconds_count{http_route=\"/recommendations\",status_class=\"5xx\"} 1",
            "gateway_request_duration_seconds_count{http_route=\"other\",status_class=\"499\"} 0",
            "gateway_log_lines_malformed_total 1",
            "gateway_log_lines_dropped_total 0",
        ] {
            assert!(text.lines().any(|line| line == series), "no {series} in\n{text}");
        }
    }
}
