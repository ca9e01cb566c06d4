//! How a server comes to a gateway and leaves it without a lost request. The gateway knows the paths of all sockets that there may be; a
//! server is there while its path exists.
//!
//! - It comes when it is ready: [`Reserved`] listens under another name before, and `open` renames the file. A file that a killed process left
//!   is replaced.
//! - It leaves ([`Open::serve`]) in this order: remove the file, so that no new connection comes; answer on, each answer with
//!   `Connection: close`, so that the gateway sends nothing more on that connection; end when no connection is left. The gateway must close
//!   idle connections sooner than the server gives up (nginx: `keepalive_timeout` of the upstream).
//!
//! Hyper's graceful shutdown comes last. It closes idle connections at once, without a look at what has arrived on them (hyper issue 3961):
//! a request that the gateway has just sent is lost, and a POST must not be sent again.

use std::{
    convert::Infallible,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::Request,
    http::{HeaderValue, header::CONNECTION},
    response::Response,
    serve::IncomingStream,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tower::{Service, ServiceExt as _};

use crate::{
    Endpoint, lifecycle,
    net::{Listener, is_unused},
};

/// Ending of a socket's name before its server is ready.
const RESERVED: &str = ".new";
/// A caller may have found the file just before it was removed: its connection arrives within this time.
const LAST_ARRIVALS: Duration = Duration::from_millis(50);
/// Between two looks for connections that wait to be accepted.
const POLL: Duration = Duration::from_millis(10);

/// A bound endpoint that callers do not find yet. Connections to a TCP endpoint wait until it is served.
#[derive(Debug)]
pub struct Reserved {
    listener: Listener,
    file: Option<SocketFile>,
}

/// A socket's file under its first name, which is removed if the server does not come so far as to open it.
#[derive(Debug)]
struct SocketFile {
    reserved: PathBuf,
    path: PathBuf,
    is_open: bool,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.is_open {
            // No caller knows this name, and the next process replaces what is left.
            let _ = std::fs::remove_file(&self.reserved);
        }
    }
}

impl Reserved {
    /// # Errors
    /// As `bind(2)`: in use, also under its final name; not permitted; or the path with `.new` is too long for a socket.
    pub async fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        let Endpoint::Unix(path) = endpoint else {
            return Ok(Self { listener: endpoint.bind().await?, file: None });
        };
        refuse_if_used(path).await?;
        let mut reserved = path.clone().into_os_string();
        reserved.push(RESERVED);
        let reserved = PathBuf::from(reserved);
        let listener = Endpoint::Unix(reserved.clone()).bind().await?;
        Ok(Self { listener, file: Some(SocketFile { reserved, path: path.clone(), is_open: false }) })
    }

    /// Callers find it from now on. Replaces the file of a socket on which no process listens.
    ///
    /// # Errors
    /// The path is in use meanwhile, or as `rename(2)`.
    pub async fn open(self) -> io::Result<Open> {
        let Self { listener, file } = self;
        let Some(mut file) = file else { return Ok(Open { listener, path: None }) };
        refuse_if_used(&file.path).await?;
        std::fs::rename(&file.reserved, &file.path)?;
        file.is_open = true;
        Ok(Open { listener, path: Some(file.path.clone()) })
    }
}

async fn refuse_if_used(path: &Path) -> io::Result<()> {
    if is_unused(path).await { Ok(()) } else { Err(io::ErrorKind::AddrInUse.into()) }
}

/// An endpoint that callers find.
#[derive(Debug)]
pub struct Open {
    listener: Listener,
    /// `None`: TCP.
    path: Option<PathBuf>,
}

impl Open {
    /// Serves until `shutdown`, leaves within `leave`, then lets requests in flight finish for at most `drain`.
    ///
    /// A TCP endpoint has no file that can be removed: it accepts connections for the whole of `leave`, until its callers have seen that it is
    /// not ready.
    ///
    /// # Errors
    /// The listener failed. Connections that are left at the end of `leave` or `drain` are logged; they are no error.
    pub async fn serve<S>(
        self,
        app: S,
        shutdown: CancellationToken,
        leave: Duration,
        drain: Duration,
    ) -> anyhow::Result<()>
    where
        S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    {
        let Self { listener, path } = self;
        let waiting = match &listener {
            Listener::Unix(listener) => Some(listener.as_fd().try_clone_to_owned()?),
            Listener::Tcp(_) => None,
        };
        let leaving = Leaving { path, waiting, is_leaving: Arc::default(), connections: TaskTracker::new() };
        let make_service = {
            let (is_leaving, connections) = (Arc::clone(&leaving.is_leaving), leaving.connections.clone());
            tower::service_fn(move |_: IncomingStream<'_, Listener>| {
                let connection =
                    Arc::new(Connection { is_leaving: Arc::clone(&is_leaving), _counted: connections.token() });
                let service = app.clone().map_response(move |answer| connection.mark(answer));
                std::future::ready(Ok::<_, Infallible>(service))
            })
        };
        let end = CancellationToken::new();
        let served = lifecycle::serve_connections(listener, make_service, end.clone(), drain);
        let left = async {
            shutdown.cancelled().await;
            leaving.leave(leave).await;
            end.cancel();
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            served = served => served,
            never = left => match never {},
        }
    }
}

/// Of one connection: hyper holds it for as long as the connection is open.
struct Connection {
    is_leaving: Arc<AtomicBool>,
    _counted: TaskTrackerToken,
}

impl Connection {
    /// Hyper closes the connection after an answer with this header.
    fn mark(&self, mut answer: Response) -> Response {
        if self.is_leaving.load(Ordering::Relaxed) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

struct Leaving {
    path: Option<PathBuf>,
    /// The listening Unix socket, to see whether connections wait to be accepted.
    waiting: Option<OwnedFd>,
    is_leaving: Arc<AtomicBool>,
    connections: TaskTracker,
}

impl Leaving {
    /// Ends with it: a second descriptor of the listener would keep connections waiting that nobody accepts.
    async fn leave(self, within: Duration) {
        self.is_leaving.store(true, Ordering::Relaxed);
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(%error, path = %path.display(), "cannot remove the socket: new connections come on");
        }
        if tokio::time::timeout(within, self.gone()).await.is_err() && self.path.is_some() && !within.is_zero() {
            tracing::warn!(
                connections = self.connections.len(),
                leave_ms = within.as_millis() as u64,
                "connections were still open at the end of the leave"
            );
        }
    }

    /// Returns once no connection is open and none waits to be accepted. Over TCP new ones may always come.
    async fn gone(&self) {
        let Some(waiting) = &self.waiting else { return std::future::pending().await };
        tokio::time::sleep(LAST_ARRIVALS).await;
        self.connections.close();
        loop {
            self.connections.wait().await;
            // Asks the kernel: this runtime may not have seen the connection yet.
            let mut listener = [PollFd::new(waiting.as_fd(), PollFlags::POLLIN)];
            // On an error nothing is known; the end of the leave bounds the wait.
            if poll(&mut listener, PollTimeout::ZERO) == Ok(0) && self.connections.is_empty() {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

#[cfg(test)]
mod tests;
