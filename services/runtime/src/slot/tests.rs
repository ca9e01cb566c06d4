use axum::{Router, routing::get};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
};

use super::*;
use crate::net::Stream;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

struct Bed {
    dir: TempDir,
    shutdown: CancellationToken,
}

impl Bed {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), shutdown: CancellationToken::new() }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.dir.path().join("s"))
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn serve(&self, open: Open, leave: Duration) -> JoinHandle<anyhow::Result<()>> {
        let app = Router::new().route("/", get(async || "hello"));
        tokio::spawn(open.serve(app, self.shutdown.clone(), leave, Duration::from_secs(1)))
    }

    async fn served(&self, leave: Duration) -> JoinHandle<anyhow::Result<()>> {
        self.serve(Reserved::bind(&self.endpoint()).await.unwrap().open().await.unwrap(), leave)
    }

    /// Stops the server and waits until its socket has gone.
    async fn leave(&self) {
        self.shutdown.cancel();
        while !self.files().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

/// The head of the answer to a request on this connection.
async fn ask(connection: &mut Stream) -> String {
    connection.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        assert!(connection.read_buf(&mut answer).await.unwrap() > 0, "closed after {answer:?}");
    }
    String::from_utf8(answer).unwrap().to_lowercase()
}

async fn is_closed(mut connection: Stream) -> bool {
    connection.read(&mut [0]).await.unwrap() == 0
}

#[tokio::test]
async fn callers_find_a_server_once_it_is_open() {
    let bed = Bed::new();
    let endpoint = bed.endpoint();
    // As a killed process leaves it.
    drop(endpoint.bind().await.unwrap());
    let reserved = Reserved::bind(&endpoint).await.unwrap();
    assert_eq!(endpoint.connect().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let open = reserved.open().await.unwrap();
    assert_eq!(bed.files(), ["s"]);
    let served = bed.serve(open, LONG);
    assert!(!ask(&mut endpoint.connect().await.unwrap()).await.contains("connection:"));

    assert_eq!(Reserved::bind(&endpoint).await.unwrap_err().kind(), io::ErrorKind::AddrInUse, "it is served");
    bed.shutdown.cancel();
    served.await.unwrap().unwrap();
    assert_eq!(bed.files(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_server_that_ends_before_it_is_ready_leaves_no_file() {
    let bed = Bed::new();
    let reserved = Reserved::bind(&bed.endpoint()).await.unwrap();
    assert_eq!(bed.files(), ["s.new"]);
    // While it started, another one took its place.
    let other = bed.endpoint().bind().await.unwrap();
    assert_eq!(reserved.open().await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(bed.files(), ["s"]);
    drop(other);
    std::fs::remove_file(bed.dir.path().join("s")).unwrap();
    std::fs::write(bed.dir.path().join("s"), "kept").unwrap();
    assert_eq!(Reserved::bind(&bed.endpoint()).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(bed.files(), ["s"]);
}

/// Open connections get an answer each, and the server ends with the last one.
#[tokio::test]
async fn a_leaving_server_answers_until_no_connection_is_left() {
    let bed = Bed::new();
    let served = bed.served(LONG).await;
    let (mut used, mut idle) = (bed.endpoint().connect().await.unwrap(), bed.endpoint().connect().await.unwrap());
    ask(&mut used).await;
    ask(&mut idle).await;
    // Nobody has accepted it when the socket goes.
    let mut new = bed.endpoint().connect().await.unwrap();
    bed.leave().await;
    assert_eq!(bed.endpoint().connect().await.unwrap_err().kind(), io::ErrorKind::NotFound);
    for connection in [&mut used, &mut new] {
        assert!(ask(connection).await.contains("\r\nconnection: close\r\n"));
    }
    assert!(is_closed(used).await && is_closed(new).await);
    assert!(!served.is_finished(), "one connection is left");
    assert!(ask(&mut idle).await.contains("\r\nconnection: close\r\n"));
    drop(idle);
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_the_end_of_the_leave() {
    let bed = Bed::new();
    let served = bed.served(Duration::from_millis(100)).await;
    let mut idle = bed.endpoint().connect().await.unwrap();
    ask(&mut idle).await;
    bed.shutdown.cancel();
    assert!(is_closed(idle).await);
    served.await.unwrap().unwrap();
}

/// Its callers see that it is not ready, each in its own time.
#[tokio::test]
async fn over_tcp_connections_are_accepted_until_the_end_of_the_leave() {
    let bed = Bed::new();
    let any: Endpoint = "127.0.0.1:0".parse().unwrap();
    let open = Reserved::bind(&any).await.unwrap().open().await.unwrap();
    let endpoint = open.listener.endpoint().unwrap();
    let served = bed.serve(open, Duration::from_millis(300));
    bed.shutdown.cancel();
    let mut late = endpoint.connect().await.unwrap();
    assert!(ask(&mut late).await.contains("\r\nconnection: close\r\n"));
    assert!(is_closed(late).await);
    served.await.unwrap().unwrap();
    assert_eq!(endpoint.connect().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}
