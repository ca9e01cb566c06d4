//! Sends one node's heartbeats over TCP: one per interval, each acknowledged, with reconnection by `Reconnect`.

use std::{io, sync::Arc, time::Duration};

use rand::{SeedableRng, rngs::SmallRng};
use tokio::{
    net::TcpStream,
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{FrameReader, keep_alive, write_frame};
use crate::{
    Nanos,
    auth::Keys,
    clock::Clock,
    codec::Codec,
    frame::{sign_beat, verify_ack},
    message::{Ack, Beat},
    reconnect::{Action, Policy, Reconnect, State},
    sender::Pace,
};

pub struct Settings {
    /// `host:port`. Resolved for each connection: a recreated monitor may have another address.
    pub monitor: String,
    pub keys: Keys,
    pub codec: Box<dyn Codec>,
    pub interval: Duration,
    /// Timeout of connecting and of an acknowledgement; at most the interval, otherwise heartbeats are skipped.
    pub wait: Duration,
    pub policy: Policy,
    /// Seed of the jitter.
    pub seed: u64,
}

/// Shows a sender's state and resumes it.
#[derive(Clone)]
pub struct Handle {
    resume: Arc<Notify>,
    state: watch::Receiver<State>,
}

impl Handle {
    /// Restarts reconnection attempts (the monitor was in contact, or an operator asks) unless connected or trying. Returns the state
    /// before, and whether it restarted.
    pub fn resume(&self) -> (State, bool) {
        let state = *self.state.borrow();
        // A notification without a waiting sender would be stored, and would shorten a later wait.
        if state.is_idle() {
            self.resume.notify_one();
        }
        (state, state.is_idle())
    }

    /// The state, and its changes.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

pub struct Sender {
    settings: Settings,
    clock: Clock,
    machine: Reconnect<SmallRng>,
    resume: Arc<Notify>,
    state: watch::Sender<State>,
    frame: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    reader: FrameReader,
}

impl Sender {
    pub fn new(settings: Settings, clock: Clock) -> (Self, Handle) {
        let machine = Reconnect::new(settings.policy, SmallRng::seed_from_u64(settings.seed));
        let resume = Arc::new(Notify::new());
        let (state, seen) = watch::channel(machine.state());
        let handle = Handle { resume: Arc::clone(&resume), state: seen };
        (Self { settings, clock, machine, resume, state, frame: Vec::new() }, handle)
    }

    /// Runs until `stop`; `beat` makes each heartbeat when it is due, sequence included.
    pub async fn run(mut self, beat: impl FnMut() -> Beat + Send, stop: CancellationToken) {
        stop.run_until_cancelled(self.forever(beat)).await;
    }

    async fn forever(&mut self, mut beat: impl FnMut() -> Beat + Send) {
        let pace = Pace::new(self.clock.now(), self.settings.interval.as_nanos() as Nanos);
        let mut number = 0;
        let mut connection = None;
        loop {
            let action = match self.machine.state() {
                State::Trying { .. } => {
                    connection = self.connect(&beat()).await;
                    number = pace.next(number, self.clock.now());
                    Action::Nothing
                }
                State::Connected { .. } => {
                    self.sleep_until(pace.planned(number)).await;
                    let action = self.send(connection.as_mut(), &beat()).await;
                    number = pace.next(number, self.clock.now());
                    action
                }
                State::Waiting { .. } | State::Silent { .. } | State::Stopped => self.idle().await,
            };
            if action == Action::Disconnect {
                connection = None;
            }
            self.publish(action);
        }
    }

    /// An attempt succeeds with the first acknowledgement: the kernel of a stopped monitor still accepts connections.
    async fn connect(&mut self, beat: &Beat) -> Option<Connection> {
        let opened = timeout(self.settings.wait, TcpStream::connect(&self.settings.monitor)).await;
        let opened = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let tried = match opened.and_then(|stream| keep_alive(&stream).map(|()| stream)) {
            Ok(stream) => {
                // Acknowledgements are short.
                let mut connection = Connection { stream, reader: FrameReader::new(Arc::new(Semaphore::new(0))) };
                self.exchange(&mut connection, beat).await.map(|()| connection)
            }
            Err(error) => Err(error),
        };
        match tried {
            Ok(connection) => {
                self.machine.connected();
                Some(connection)
            }
            Err(error) => {
                tracing::debug!(monitor = %self.settings.monitor, %error, "cannot connect to send heartbeats");
                self.machine.failed(self.clock.now());
                None
            }
        }
    }

    /// A timeout is a failure that the connection may survive; an error is not.
    async fn send(&mut self, connection: Option<&mut Connection>, beat: &Beat) -> Action {
        let Some(connection) = connection else { return self.machine.lost(self.clock.now()) };
        match self.exchange(connection, beat).await {
            Ok(()) => {
                self.machine.succeeded();
                Action::Nothing
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => self.machine.failed(self.clock.now()),
            Err(_) => self.machine.lost(self.clock.now()),
        }
    }

    /// Sends a heartbeat and waits for its acknowledgement. `TimedOut`: none arrived within `wait`.
    async fn exchange(&mut self, connection: &mut Connection, beat: &Beat) -> io::Result<()> {
        let Settings { keys, codec, wait, .. } = &mut self.settings;
        self.frame.clear();
        sign_beat(keys, &mut **codec, beat, true, &mut self.frame).map_err(io::Error::other)?;
        let wanted = Ack { of: beat.node_id.clone(), incarnation: beat.incarnation, sequence: beat.sequence };
        let exchange = async {
            write_frame(&mut connection.stream, &self.frame).await?;
            while let Some(frame) = connection.reader.next(&mut connection.stream).await? {
                if verify_ack(keys, frame).as_ref() == Some(&wanted) {
                    return Ok(());
                }
            }
            Err(io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        timeout(*wait, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Waits for the timer or for `resume`.
    async fn idle(&mut self) -> Action {
        let deadline = self.machine.deadline();
        let due = async {
            match deadline {
                Some(deadline) => self.sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => self.machine.poll(self.clock.now()),
            () = self.resume.notified() => self.machine.resume(),
        }
    }

    fn publish(&self, action: Action) {
        let state = self.machine.state();
        let changed = self.state.send_if_modified(|seen| std::mem::replace(seen, state) != state);
        let monitor = &self.settings.monitor;
        match state {
            State::Stopped if action == Action::Alarm => {
                tracing::error!(%monitor, "heartbeats to the monitor have stopped: it did not answer in the last attempt and the silent period; resume the sender when it is reachable");
            }
            _ if changed => tracing::info!(%monitor, ?state, "heartbeat connection changed state"),
            _ => {}
        }
    }

    async fn sleep_until(&self, at: Nanos) {
        sleep_until(Instant::from_std(self.clock.instant(at))).await;
    }
}
