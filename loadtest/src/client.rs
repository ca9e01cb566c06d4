//! The users' HTTP/1.1 client: `GET` on kept connections, nothing else.
//!
//! A user waits on the socket itself. A general client has a task for each connection, which wakes the user's, and parses the URL anew; the
//! processor time is taken from those who are measured on the same machine. With reqwest a request of a baseline step at 4000/s cost the load
//! generator 94 µs, with this 55 µs (one run each on one machine: `cpu.load` by `answered_per_s` of the report). Connections are taken newest
//! first, so that no more are open than requests were ever under way at a time.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// nginx closes idle connections after 75 s: going first avoids requests sent into a closing connection.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
const MAX_HEADERS: usize = 32;
/// Head and body. Longer answers are none of ours.
const MAX_ANSWER_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 4096;

pub(crate) struct Client {
    addresses: Vec<SocketAddr>,
    /// `host:port`, for the header.
    host: String,
    timeout: Duration,
    idle: Mutex<Vec<Connection>>,
}

struct Connection {
    stream: TcpStream,
    /// What was read of the answer.
    buffer: Vec<u8>,
    idle_since: Instant,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No complete answer in time.
    Timeout,
    /// No connection could be opened.
    Connect,
    /// The connection broke before the answer was complete, or the answer is no HTTP that is understood here.
    Broken,
}

/// Where the body of an answer lies in the buffer.
struct Frame {
    status: u16,
    body: usize,
    end: usize,
    keep: bool,
}

impl Client {
    /// `base_url` is `http://HOST[:PORT]`.
    ///
    /// # Errors
    /// It is no such URL, or the host has no address.
    pub async fn new(base_url: &str, timeout: Duration) -> Result<Self> {
        let host = base_url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let host = host.filter(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@']));
        let host = host.with_context(|| format!("{base_url} is not of the form http://HOST:PORT"))?.to_owned();
        let named_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let target = if named_port { host.clone() } else { format!("{host}:80") };
        let addresses = tokio::net::lookup_host(&target).await.with_context(|| format!("no address of {host}"))?;
        let addresses: Vec<_> = addresses.collect();
        ensure!(!addresses.is_empty(), "no address of {host}");
        Ok(Self { addresses, host, timeout, idle: Mutex::new(Vec::new()) })
    }

    /// The complete answer to `GET path`. `header` is sent besides those that every request has.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn get(&self, path: &str, header: Option<(&str, &str)>) -> Result<Answer, Failure> {
        let (name, separator, value, end) = match header {
            Some((name, value)) => (name, ": ", value, "\r\n"),
            None => ("", "", "", ""),
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: testbed-loadtest\r\n{name}{separator}{value}{end}\r\n",
            self.host
        );
        timeout(self.timeout, self.exchange(request.as_bytes())).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn exchange(&self, request: &[u8]) -> Result<Answer, Failure> {
        // The server may have closed a kept connection just now: not a byte of an answer then means that it never saw the request.
        if let Some(mut kept) = self.kept() {
            match kept.exchange(request).await {
                Ok(frame) => return Ok(self.answer(kept, &frame)),
                Err(failure) if !kept.buffer.is_empty() => return Err(failure),
                Err(_) => {}
            }
        }
        let stream = TcpStream::connect(self.addresses.as_slice()).await.map_err(|_| Failure::Connect)?;
        stream.set_nodelay(true).map_err(|_| Failure::Connect)?;
        let mut fresh = Connection { stream, buffer: Vec::with_capacity(READ_BYTES), idle_since: Instant::now() };
        let frame = fresh.exchange(request).await?;
        Ok(self.answer(fresh, &frame))
    }

    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = idle.pop()?;
        if newest.idle_since.elapsed() < IDLE_CONNECTION {
            return Some(newest);
        }
        // So are all below it.
        idle.clear();
        None
    }

    fn answer(&self, mut connection: Connection, frame: &Frame) -> Answer {
        let body = connection.buffer[frame.body..frame.end].to_vec();
        if frame.keep {
            connection.idle_since = Instant::now();
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        Answer { status: frame.status, body }
    }
}

impl Connection {
    async fn exchange(&mut self, request: &[u8]) -> Result<Frame, Failure> {
        self.buffer.clear();
        self.stream.write_all(request).await.map_err(|_| Failure::Broken)?;
        loop {
            self.buffer.reserve(READ_BYTES);
            let read = self.stream.read_buf(&mut self.buffer).await.map_err(|_| Failure::Broken)?;
            if read == 0 || self.buffer.len() > MAX_ANSWER_BYTES {
                return Err(Failure::Broken);
            }
            match parse(&self.buffer)? {
                Some(frame) if frame.end <= self.buffer.len() => return Ok(frame),
                _ => {}
            }
        }
    }
}

/// `None`: the head is not complete.
fn parse(buffer: &[u8]) -> Result<Option<Frame>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body) = head.parse(buffer).map_err(|_| Failure::Broken)? else {
        return Ok(None);
    };
    let value = |name: &str| head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    let length = value("content-length").and_then(|length| std::str::from_utf8(length).ok()?.parse::<usize>().ok());
    // Neither gateway nor service sends anything else.
    let length = length.filter(|length| *length <= MAX_ANSWER_BYTES).ok_or(Failure::Broken)?;
    let keep =
        head.version == Some(1) && !value("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    Ok(Some(Frame { status: head.code.ok_or(Failure::Broken)?, body, end: body + length, keep }))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Serves one connection after the other: each request gets the next piece of what that connection has to say; then it is closed.
    async fn serve(connections: Vec<Vec<&'static str>>) -> (Client, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answers in connections {
                let (mut stream, _) = listener.accept().await.unwrap();
                for answer in answers {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                    }
                    requests.push(String::from_utf8(request).unwrap());
                    for piece in answer.split('|') {
                        stream.write_all(piece.as_bytes()).await.unwrap();
                        stream.flush().await.unwrap();
                        tokio::task::yield_now().await;
                    }
                }
            }
            requests
        });
        (Client::new(&url, Duration::from_secs(10)).await.unwrap(), served)
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_one_that_was_closed_is_replaced() {
        let (ok, refused) = (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel|lo",
            "HTTP/1.1 503 No\r\nx: y\r\ncontent-l|ength: 2\r\n\r\nno",
        );
        let (client, served) = serve(vec![vec![ok, refused], vec![ok]]).await;
        assert_eq!(client.get("/a", None).await, Ok(Answer { status: 200, body: b"hello".to_vec() }));
        assert_eq!(client.get("/b", Some(("traceparent", "00-1"))).await.unwrap().status, 503);
        assert_eq!(client.get("/c", None).await.unwrap().status, 200);
        let requests = served.await.unwrap();
        assert!(requests[0].starts_with("GET /a HTTP/1.1\r\nhost: 127.0.0.1:"), "{}", requests[0]);
        assert!(requests[1].ends_with("\r\ntraceparent: 00-1\r\n\r\n"), "{}", requests[1]);
        assert_eq!(requests.len(), 3);
    }

    #[tokio::test]
    async fn a_server_that_says_close_is_taken_at_its_word() {
        let close = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let (client, served) = serve(vec![vec![close], vec![close]]).await;
        for _ in 0..2 {
            assert_eq!(client.get("/", None).await.unwrap().status, 200);
        }
        assert_eq!(served.await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn what_breaks_off_or_is_no_http_is_broken() {
        for bad in ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "SSH-2.0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", ""]
        {
            let (client, served) = serve(vec![vec![bad]]).await;
            assert_eq!(client.get("/", None).await, Err(Failure::Broken), "{bad}");
            served.await.unwrap();
        }
    }

    #[tokio::test]
    async fn nobody_there_and_no_answer_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::new(&url, Duration::from_millis(50)).await.unwrap();
        assert_eq!(client.get("/", None).await, Err(Failure::Timeout));
        drop(listener);
        assert_eq!(client.get("/", None).await, Err(Failure::Connect));
    }

    #[tokio::test]
    async fn only_plain_urls_are_understood() {
        for bad in ["https://127.0.0.1:1", "127.0.0.1:1", "http://", "http://127.0.0.1:1/path", "http://a@127.0.0.1:1"]
        {
            let error = Client::new(bad, Duration::from_secs(1)).await.err().unwrap();
            assert!(error.to_string().contains("http://HOST:PORT"), "{error}");
        }
    }
}
