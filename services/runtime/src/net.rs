//! Endpoints of services: TCP, or a Unix socket within one machine. A round trip over a Unix socket needs about two thirds of the CPU time of
//! loopback TCP.

use std::{
    fmt, io,
    net::SocketAddr,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

/// The kernel's limit for the path of a Unix socket, in bytes.
const MAX_PATH: usize = 107;

/// Written as in nginx: `127.0.0.1:8080` or `unix:/path/of/socket`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    #[error("'{0}' is neither address:port nor unix:/path")]
    Neither(String),
    #[error("'{0}': the path of a Unix socket is absolute and at most {MAX_PATH} bytes long")]
    Path(String),
}

impl Endpoint {
    /// The port is 0: the system chooses one when it is bound.
    pub fn is_unspecified(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.port() == 0)
    }

    pub fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// # Errors
    /// As `connect(2)`.
    pub async fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(address) => TcpStream::connect(address).await.map(Stream::tcp),
            Self::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        }
    }

    /// Replaces the file of a Unix socket on which no process listens.
    ///
    /// # Errors
    /// As `bind(2)`: in use, not permitted, or the path is another kind of file.
    pub async fn bind(&self) -> io::Result<Listener> {
        match self {
            Self::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
            Self::Unix(path) => {
                if path.exists() && is_unused(path).await {
                    std::fs::remove_file(path)?;
                }
                UnixListener::bind(path).map(Listener::Unix)
            }
        }
    }
}

/// Whether nothing is at the path, or a socket on which no process listens.
pub(crate) async fn is_unused(path: &Path) -> bool {
    match std::fs::symlink_metadata(path) {
        // Only sockets: connecting to a plain file is refused as well.
        Ok(meta) if meta.file_type().is_socket() => {
            UnixStream::connect(path).await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        }
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp).map_err(|_| InvalidEndpoint::Neither(text.to_owned()));
        };
        if !path.starts_with('/') || path.len() > MAX_PATH {
            return Err(InvalidEndpoint::Path(text.to_owned()));
        }
        Ok(Self::Unix(path.into()))
    }
}

impl TryFrom<String> for Endpoint {
    type Error = InvalidEndpoint;

    fn try_from(text: String) -> Result<Self, InvalidEndpoint> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// # Errors
    /// As `accept(2)`.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::tcp(stream)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }

    /// The endpoint, with the port that the system chose.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    pub fn endpoint(&self) -> io::Result<Endpoint> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Endpoint::Tcp),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                Ok(Endpoint::Unix(address.as_pathname().map(PathBuf::from).unwrap_or_default()))
            }
        }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = Endpoint;

    async fn accept(&mut self) -> (Stream, Endpoint) {
        // axum's listeners retry, after a pause if there are no file descriptors left.
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = axum::serve::Listener::accept(listener).await;
                (Stream::tcp(stream), Endpoint::Tcp(peer))
            }
            Self::Unix(listener) => {
                let (stream, _) = axum::serve::Listener::accept(listener).await;
                (Stream::Unix(stream), Endpoint::Unix(PathBuf::new()))
            }
        }
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        self.endpoint()
    }
}

#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn tcp(stream: TcpStream) -> Self {
        // Messages are small and written at once: Nagle's algorithm and delayed acknowledgements may add 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        Self::Tcp(stream)
    }

    /// Writes as much as possible without waiting.
    ///
    /// # Errors
    /// As `send(2)`; `WouldBlock` if nothing fits.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Makes TCP send RST when the stream is dropped. A Unix socket is closed as usual.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn reset_on_drop(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_zero_linger(),
            Self::Unix(_) => Ok(()),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn written_and_read() {
        for text in ["127.0.0.1:8080", "[::1]:1", "unix:/run/x.sock"] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
        }
        for bad in ["", "nowhere", "localhost:1", "/run/x.sock", "unix:", "unix:relative"] {
            let error = bad.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
        assert!(format!("unix:/{}", "x".repeat(MAX_PATH - 1)).parse::<Endpoint>().is_ok());
        assert!(format!("unix:/{}", "x".repeat(MAX_PATH)).parse::<Endpoint>().is_err());
    }

    #[tokio::test]
    async fn only_an_unused_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(dir.path().join("s"));
        let first = endpoint.bind().await.unwrap();
        assert_eq!(first.endpoint().unwrap(), endpoint);
        assert_eq!(endpoint.bind().await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert_eq!(endpoint.connect().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let second = endpoint.bind().await.unwrap();
        let (client, server) = tokio::join!(endpoint.connect(), second.accept());
        client.unwrap().write_all(b"x").await.unwrap();
        assert_eq!(server.unwrap().read_u8().await.unwrap(), b'x');

        let file = dir.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        Endpoint::Unix(file.clone()).bind().await.unwrap_err();
        assert_eq!(std::fs::read(file).unwrap(), b"kept");
    }
}
