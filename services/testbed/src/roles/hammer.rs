//! `serve hammer`: keep-alive connections that each send their next request when the answer is there, as fast as it goes. It
//! measures what a process can do, not what users get: for that, see `loadtest`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Loopback only.
    pub address: SocketAddr,
    /// Of the requests, in turns; what follows the host, e.g. `/recommendations?user_id=u1`.
    pub paths: Vec<String>,
    /// 1..=1024, each with one request outstanding, always.
    pub connections: usize,
    /// 10..=600,000.
    pub run_ms: u64,
    /// Where [`Outcome`] is written as JSON.
    pub result: PathBuf,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Answered 200.
    pub requests: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    pub seconds: f64,
}

/// Longer answers are none of ours.
const MAX_HEAD_BYTES: usize = 8 << 10;
const MAX_BODY_BYTES: usize = 1 << 20;
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the plan of that file and writes what came of it.
///
/// # Errors
/// The plan is out of range, a connection breaks, or an answer is no 200.
pub async fn run(file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let plan: Plan = serde_json::from_str(&text).with_context(|| format!("{} is no plan", file.display()))?;
    let outcome = hammer(&plan).await?;
    std::fs::write(&plan.result, serde_json::to_vec(&outcome)?)
        .with_context(|| format!("cannot write {}", plan.result.display()))
}

async fn hammer(plan: &Plan) -> anyhow::Result<Outcome> {
    ensure!(plan.address.ip().is_loopback(), "{} is no loopback address", plan.address);
    ensure!(!plan.paths.is_empty(), "there is nothing to ask for");
    ensure!((1..=1024).contains(&plan.connections), "connections must lie within 1 and 1024");
    ensure!((10..=600_000).contains(&plan.run_ms), "run_ms must lie within 10 and 600000");
    let requests: std::sync::Arc<[String]> =
        plan.paths.iter().map(|path| format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", plan.address)).collect();
    let mut connections = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        let stream = TcpStream::connect(plan.address).await;
        let stream = stream.with_context(|| format!("cannot connect to {}", plan.address))?;
        stream.set_nodelay(true)?;
        connections.push(Connection { stream, buffer: Vec::with_capacity(MAX_HEAD_BYTES) });
    }
    let (start, length) = (Instant::now(), Duration::from_millis(plan.run_ms));
    let mut tasks = JoinSet::new();
    for (number, mut connection) in connections.into_iter().enumerate() {
        let requests = std::sync::Arc::clone(&requests);
        // Each begins elsewhere in the list, so that they do not all ask for the same.
        let mut next = number * requests.len() / plan.connections;
        tasks.spawn(async move {
            let mut outcome = Outcome::default();
            while start.elapsed() < length {
                let body = tokio::time::timeout(PATIENCE, connection.ask(&requests[next % requests.len()]));
                outcome.body_bytes += body.await.context("no answer in time")?? as u64;
                outcome.requests += 1;
                next += 1;
            }
            Ok::<_, anyhow::Error>(outcome)
        });
    }
    let mut sum = Outcome::default();
    while let Some(done) = tasks.join_next().await {
        let outcome = done.context("a connection's task ended")??;
        sum.requests += outcome.requests;
        sum.body_bytes += outcome.body_bytes;
    }
    sum.seconds = start.elapsed().as_secs_f64();
    Ok(sum)
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Sends a request and reads the whole answer; returns the length of its body.
    async fn ask(&mut self, request: &str) -> anyhow::Result<usize> {
        self.stream.write_all(request.as_bytes()).await.context("the connection broke")?;
        self.buffer.clear();
        let mut wanted = None;
        loop {
            if wanted.is_none() {
                wanted = head(&self.buffer)?;
            }
            if let Some((head, body)) = wanted
                && self.buffer.len() >= head + body
            {
                ensure!(self.buffer.len() == head + body, "more was answered than was asked for");
                return Ok(body);
            }
            let read = self.stream.read_buf(&mut self.buffer).await.context("the connection broke")?;
            ensure!(read > 0, "the connection was closed");
        }
    }
}

/// Lengths of the head and of the body it announces; `None` while the head is not complete.
fn head(answer: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        ensure!(answer.len() <= MAX_HEAD_BYTES, "the head of the answer does not end");
        return Ok(None);
    };
    let text = std::str::from_utf8(&answer[..end]).context("the head of the answer is no text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200") {
        bail!("answered {status:?}");
    }
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    let length = length.context("the answer has no content-length")?;
    ensure!(length <= MAX_BODY_BYTES, "the answer has {length} bytes");
    Ok(Some((end + 4, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_and_doubtful_ones_refused() {
        let good = b"HTTP/1.1 200 OK\r\ncontent-type: a\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(head(good).unwrap(), Some((good.len() - 3, 3)));
        for cut in 0..good.len() - 3 {
            assert_eq!(head(&good[..cut]).unwrap(), None);
        }
        for bad in [
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        ] {
            assert!(head(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(head(&[b'x'; MAX_HEAD_BYTES + 1]).is_err());
    }

    #[tokio::test]
    async fn every_answer_is_counted() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().route("/a", axum::routing::get(|| async { "12345" }));
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        let plan =
            Plan { address, paths: vec!["/a".into()], connections: 3, run_ms: 50, result: PathBuf::from("unused") };
        let outcome = hammer(&plan).await.unwrap();
        assert!(outcome.requests >= 3 && outcome.seconds >= 0.05, "{outcome:?}");
        assert_eq!(outcome.body_bytes, 5 * outcome.requests);
        let wrong = Plan { paths: vec!["/b".into()], ..plan.clone() };
        assert!(hammer(&wrong).await.unwrap_err().to_string().contains("404"));
        let elsewhere = Plan { address: "192.0.2.1:80".parse().unwrap(), ..plan };
        assert!(hammer(&elsewhere).await.unwrap_err().to_string().contains("loopback"));
        server.abort();
    }
}
