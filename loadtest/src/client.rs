//! A minimal HTTP/1.1 client: `GET` and `POST` on persistent connections.
//!
//! The load generator shares the machine with the measured service, so its CPU time matters. A general client runs a task per connection,
//! which wakes the user's task, and parses each URL; here the user's task reads the socket. A request of a baseline step at 4000/s cost
//! 94 µs with reqwest and 55 µs with this client (one run each on one machine: `cpu.load` / `answered_per_s` of the report). The newest
//! idle connection is used first, so no more connections are open than requests were in flight.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::figures::RequestCounts;

/// Below nginx's idle timeout of 75 s, so that no request is sent on a connection that nginx is closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Of a response. Our own have 10; those of other services may have some dozens.
const MAX_HEADERS: usize = 64;
/// Limit of a response, head and body. The API's responses are shorter than a kibibyte.
const MAX_RESPONSE_BYTES: usize = 16 << 20;
const READ_BYTES: usize = 4096;
/// An idle connection keeps at most this.
const MAX_IDLE_BUFFER: usize = 64 << 10;

pub(crate) struct Client {
    addresses: Vec<SocketAddr>,
    /// `host:port`, for the `Host` header.
    host: String,
    timeout: Duration,
    idle: Mutex<Vec<Connection>>,
    requests: AtomicU64,
    unsent: AtomicU64,
    resent: AtomicU64,
}

/// Counts the copies of one request. Dropping it adds them to the client's counts, also after a timeout.
struct Copies<'a> {
    client: &'a Client,
    written: u64,
}

struct Connection {
    stream: TcpStream,
    /// Received bytes of the response.
    buffer: Vec<u8>,
    idle_since: Instant,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No complete response before the timeout.
    Timeout,
    /// No connection could be opened.
    Connect,
    /// The connection broke before the response was complete, or the response is not valid HTTP/1, or too long.
    Broken,
}

/// A response that has arrived completely.
struct Complete {
    status: u16,
    body: Body,
    keep_alive: bool,
}

enum Body {
    /// In the buffer.
    Range(std::ops::Range<usize>),
    /// Put together from chunks.
    Joined(Vec<u8>),
}

impl Client {
    /// `base_url` has the form `http://HOST[:PORT]`.
    ///
    /// # Errors
    /// `base_url` has another form, or the host name has no address.
    pub async fn new(base_url: &str, timeout: Duration) -> Result<Self> {
        let host = base_url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let host = host.filter(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@']));
        let host = host.with_context(|| format!("base URL {base_url} must have the form http://HOST:PORT"))?.to_owned();
        let named_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let target = if named_port { host.clone() } else { format!("{host}:80") };
        let addresses = tokio::net::lookup_host(&target).await.with_context(|| format!("cannot resolve {host}"))?;
        let addresses: Vec<_> = addresses.collect();
        ensure!(!addresses.is_empty(), "host name {host} has no address");
        Ok(Self::to(addresses, host, timeout))
    }

    /// Connects only to these addresses, of which it tries one after the other. `host` is the `Host` header.
    pub fn to(addresses: Vec<SocketAddr>, host: String, timeout: Duration) -> Self {
        let zero = AtomicU64::default;
        let idle = Mutex::new(Vec::new());
        Self { addresses, host, timeout, idle, requests: zero(), unsent: zero(), resent: zero() }
    }

    /// All requests that have ended.
    pub fn counts(&self) -> RequestCounts {
        let [requests, unsent, resent] =
            [&self.requests, &self.unsent, &self.resent].map(|count| count.load(Ordering::Relaxed));
        RequestCounts { requests, unsent, resent, tries: None }
    }

    /// Sends `GET path` with additional headers and returns the complete response.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Response, Failure> {
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: testbed-loadtest\r\n", self.host);
        for (name, value) in headers {
            request.extend([name, ": ", value, "\r\n"]);
        }
        request.push_str("\r\n");
        timeout(self.timeout, self.exchange(request.as_bytes())).await.unwrap_or(Err(Failure::Timeout))
    }

    /// Sends `POST path` with a JSON document and returns the complete response. A request may arrive twice: see `exchange`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn post_json(&self, path: &str, body: &[u8]) -> Result<Response, Failure> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: testbed-loadtest\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        timeout(self.timeout, self.exchange(&request)).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn exchange(&self, request: &[u8]) -> Result<Response, Failure> {
        let mut copies = Copies { client: self, written: 0 };
        // The server may have closed an idle connection. Without a byte of a response it has not seen the request, so a new connection
        // may send it again.
        if let Some(mut idle) = self.take_idle() {
            match idle.exchange(request, &mut copies).await {
                Ok(complete) => return Ok(self.response(idle, complete)),
                Err(failure) if !idle.buffer.is_empty() => return Err(failure),
                Err(_) => {}
            }
        }
        let stream = TcpStream::connect(self.addresses.as_slice()).await.map_err(|_| Failure::Connect)?;
        stream.set_nodelay(true).map_err(|_| Failure::Connect)?;
        let mut fresh = Connection { stream, buffer: Vec::with_capacity(READ_BYTES), idle_since: Instant::now() };
        let complete = fresh.exchange(request, &mut copies).await?;
        Ok(self.response(fresh, complete))
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = idle.pop()?;
        if newest.idle_since.elapsed() < IDLE_TIMEOUT {
            return Some(newest);
        }
        // All others are older.
        idle.clear();
        None
    }

    fn response(&self, mut connection: Connection, complete: Complete) -> Response {
        let Complete { status, body, keep_alive } = complete;
        let body = match body {
            Body::Range(range) => connection.buffer[range].to_vec(),
            Body::Joined(body) => body,
        };
        if keep_alive {
            connection.buffer.clear();
            connection.buffer.shrink_to(MAX_IDLE_BUFFER);
            connection.idle_since = Instant::now();
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        Response { status, body }
    }
}

impl Drop for Copies<'_> {
    fn drop(&mut self) {
        self.client.requests.fetch_add(1, Ordering::Relaxed);
        self.client.unsent.fetch_add(u64::from(self.written == 0), Ordering::Relaxed);
        self.client.resent.fetch_add(self.written.saturating_sub(1), Ordering::Relaxed);
    }
}

impl Connection {
    async fn exchange(&mut self, request: &[u8], copies: &mut Copies<'_>) -> Result<Complete, Failure> {
        self.buffer.clear();
        self.stream.write_all(request).await.map_err(|_| Failure::Broken)?;
        copies.written += 1;
        loop {
            self.buffer.reserve(READ_BYTES);
            let read = self.stream.read_buf(&mut self.buffer).await.map_err(|_| Failure::Broken)?;
            let has_ended = read == 0;
            if let Some(complete) = parse(&self.buffer, has_ended)? {
                return Ok(complete);
            }
            if has_ended || self.buffer.len() > MAX_RESPONSE_BYTES {
                return Err(Failure::Broken);
            }
        }
    }
}

/// `None`: the response is not complete. `has_ended`: the server has closed the connection.
fn parse(buffer: &[u8], has_ended: bool) -> Result<Option<Complete>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(buffer).map_err(|_| Failure::Broken)? else {
        return Ok(None);
    };
    let value = |name: &str| head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    let is = |name: &str, word: &[u8]| value(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
    let status = head.code.ok_or(Failure::Broken)?;
    let keep_alive = head.version == Some(1) && !is("connection", b"close");
    let received = buffer.len() - start;
    // RFC 9112, section 6.3. Our own gateway and API always send a Content-Length.
    if matches!(status, 204 | 304) {
        return Ok(Some(Complete { status, body: Body::Range(start..start), keep_alive }));
    }
    if is("transfer-encoding", b"chunked") {
        let body = join_chunks(&buffer[start..])?;
        return Ok(body.map(|body| Complete { status, body: Body::Joined(body), keep_alive }));
    }
    let Some(length) = value("content-length") else {
        let body = Body::Range(start..buffer.len());
        return Ok(has_ended.then_some(Complete { status, body, keep_alive: false }));
    };
    let length = std::str::from_utf8(length).ok().and_then(|length| length.parse::<usize>().ok());
    let length = length.filter(|length| *length <= MAX_RESPONSE_BYTES).ok_or(Failure::Broken)?;
    let body = Body::Range(start..start + length);
    Ok((received >= length).then_some(Complete { status, body, keep_alive }))
}

/// The body without its chunks' heads; `None`: the last chunk is not here.
fn join_chunks(mut rest: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    let mut body = Vec::new();
    loop {
        let size = httparse::parse_chunk_size(rest).map_err(|_| Failure::Broken)?;
        let httparse::Status::Complete((start, size)) = size else { return Ok(None) };
        let size = usize::try_from(size).ok().filter(|size| *size <= MAX_RESPONSE_BYTES).ok_or(Failure::Broken)?;
        if size == 0 {
            // Trailers, and an empty line.
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let trailers = httparse::parse_headers(&rest[start..], &mut headers).map_err(|_| Failure::Broken)?;
            return Ok(trailers.is_complete().then_some(body));
        }
        let Some(chunk) = rest.get(start..start + size) else { return Ok(None) };
        body.extend_from_slice(chunk);
        match rest.get(start + size..start + size + 2) {
            Some(b"\r\n") => rest = &rest[start + size + 2..],
            Some(_) => return Err(Failure::Broken),
            None => return Ok(None),
        }
    }
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
        assert_eq!(client.get("/a", &[]).await, Ok(Response { status: 200, body: b"hello".to_vec() }));
        assert_eq!(client.get("/b", &[("traceparent", "00-1")]).await.unwrap().status, 503);
        assert_eq!(client.get("/c", &[]).await.unwrap().status, 200);
        let requests = served.await.unwrap();
        assert!(requests[0].starts_with("GET /a HTTP/1.1\r\nhost: 127.0.0.1:"), "{}", requests[0]);
        assert!(requests[1].ends_with("\r\ntraceparent: 00-1\r\n\r\n"), "{}", requests[1]);
        assert_eq!(requests.len(), 3);
        // The third one may have been written to the connection that was closed.
        let counts = client.counts();
        assert_eq!((counts.requests, counts.unsent), (3, 0));
        assert!(counts.resent <= 1, "{counts:?}");
    }

    /// A server that closes after it has read a request, without an answer: the client cannot know that it was read.
    #[tokio::test]
    async fn a_request_that_is_sent_again_is_counted() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let (client, served) = serve(vec![vec![ok, ""], vec![ok]]).await;
        for _ in 0..2 {
            assert_eq!(client.get("/", &[]).await.unwrap().status, 200);
        }
        assert_eq!(served.await.unwrap().len(), 3);
        assert_eq!(client.counts(), RequestCounts { requests: 2, resent: 1, ..RequestCounts::default() });
    }

    #[tokio::test]
    async fn a_connection_is_closed_when_the_server_says_so() {
        let close = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let (client, served) = serve(vec![vec![close], vec![close]]).await;
        for _ in 0..2 {
            assert_eq!(client.get("/", &[]).await.unwrap().status, 200);
        }
        assert_eq!(served.await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn bodies_of_other_servers_are_read_to_their_end() {
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r|\nhel\r\n2\r\nl|o\r\n0\r\nx: y\r\n|\r\n";
        let (empty, until_closed) = ("HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nhel|lo");
        let (client, served) = serve(vec![vec![chunked, empty, until_closed], vec![chunked]]).await;
        for (status, body) in [(200, "hello"), (204, ""), (200, "hello"), (200, "hello")] {
            assert_eq!(client.get("/", &[]).await, Ok(Response { status, body: body.into() }));
        }
        assert_eq!(served.await.unwrap().len(), 4);
    }

    #[tokio::test]
    async fn an_incomplete_or_invalid_response_is_broken() {
        for bad in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello?!0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\nContent-Le",
            "SSH-2.0\r\n\r\n",
            "",
        ] {
            let (client, served) = serve(vec![vec![bad]]).await;
            assert_eq!(client.get("/", &[]).await, Err(Failure::Broken), "{bad}");
            served.await.unwrap();
        }
    }

    #[tokio::test]
    async fn timeout_and_refused_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::new(&url, Duration::from_millis(50)).await.unwrap();
        assert_eq!(client.get("/", &[]).await, Err(Failure::Timeout));
        drop(listener);
        assert_eq!(client.get("/", &[]).await, Err(Failure::Connect));
        assert_eq!(client.counts(), RequestCounts { requests: 2, unsent: 1, ..RequestCounts::default() });
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
