//! One client connection: authentication phase (`auth`), then one command after the other.

mod auth;
mod writes;

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use runtime::{Endpoint, net::Stream};
use tokio::{io::AsyncWriteExt, sync::watch, time::timeout};

use self::writes::Writes;
use crate::{
    buffer::Buffer,
    close::{BlackholeEnd, discard_input, reset},
    command::{Commands, ResponseKind, Step},
    config::Route,
    delay::DelayTimer,
    direction::Direction,
    fault::{Conditions, EventsAtAccept, unstalled},
    loss::LossSampler,
    metrics::{ListenerMetrics, Metrics},
    packet::{Event, Framer, Malformed},
    response::Response,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// MySQL's own limit is 10 s.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// A server closes immediately after COM_QUIT.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum ConnectionEnd {
    #[error("closed")]
    Closed,
    #[error("drained")]
    Drained,
    #[error("reset")]
    Reset,
    #[error("aborted")]
    Aborted,
    #[error("black hole")]
    Blackhole,
    #[error("{1} sent a malformed packet")]
    Malformed(#[source] Malformed, Side),
    #[error("store unreachable")]
    Unreachable(#[source] io::Error),
    #[error("store lost with a command in flight")]
    Lost(#[source] io::Error),
    #[error("authentication phase timed out")]
    HandshakeTimeout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

fn client(malformed: Malformed) -> ConnectionEnd {
    ConnectionEnd::Malformed(malformed, Side::Client)
}

fn server(malformed: Malformed) -> ConnectionEnd {
    ConnectionEnd::Malformed(malformed, Side::Server)
}

/// An accepted connection and its context.
pub(crate) struct StoreConnection {
    pub(crate) stream: Stream,
    pub(crate) route: Route,
    /// Index of the listener in `Metrics::listeners`.
    pub(crate) listener: usize,
    /// Number of the connection at its listener.
    pub(crate) number: u64,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) conditions: watch::Receiver<Conditions>,
    pub(crate) delays: Arc<DelayTimer>,
    pub(crate) at_accept: EventsAtAccept,
}

/// Serves the connection until it ends. Logs and counts errors.
pub(crate) async fn serve(accepted: StoreConnection) {
    let StoreConnection { mut stream, route, listener, number, metrics, conditions, delays, at_accept } = accepted;
    let Route { listen, upstream, .. } = route;
    let counts = &metrics.listeners[listener];
    let mut stopped = conditions.clone();
    let mut end = {
        // Interrupts the session at any wait, and before it begins if a black hole is in force.
        let stop = async {
            match stopped.wait_for(|now| now.abort || now.resets(at_accept) || now.is_in_blackhole(at_accept)).await {
                Ok(now) if now.abort => ConnectionEnd::Aborted,
                Ok(now) if now.resets(at_accept) => ConnectionEnd::Reset,
                Ok(_) => ConnectionEnd::Blackhole,
                Err(_) => ConnectionEnd::Aborted,
            }
        };
        tokio::select! {
            biased;
            end = stop => end,
            end = session(&mut stream, &upstream, &metrics, counts, (conditions, at_accept), &delays, number) => end,
        }
    };
    if matches!(end, ConnectionEnd::Blackhole)
        && discard_input(&mut stream, &mut stopped, at_accept).await == BlackholeEnd::Reset
    {
        end = ConnectionEnd::Reset;
    }
    match &end {
        ConnectionEnd::Closed | ConnectionEnd::Drained | ConnectionEnd::Aborted | ConnectionEnd::Blackhole => {
            tracing::debug!(%listen, reason = %end, "connection ended")
        }
        ConnectionEnd::Reset => {
            tracing::debug!(%listen, "connection reset by fault");
            reset(&stream);
        }
        ConnectionEnd::Malformed(reason, side) => {
            tracing::warn!(%listen, %upstream, %side, %reason, "malformed packet, connection closed");
            counts.malformed(*reason);
        }
        ConnectionEnd::Unreachable(error) => {
            tracing::warn!(%listen, %upstream, %error, "store unreachable, connection closed");
            counts.unreachable.inc();
        }
        ConnectionEnd::Lost(error) => {
            tracing::warn!(%listen, %upstream, %error, "store lost with a command in flight, connection closed");
            counts.lost.inc();
        }
        ConnectionEnd::HandshakeTimeout => {
            tracing::warn!(%listen, %upstream, "authentication timed out, connection closed")
        }
    }
    // Dropping the sockets closes them.
}

async fn session(
    stream: &mut Stream,
    upstream: &Endpoint,
    metrics: &Metrics,
    counts: &ListenerMetrics,
    (conditions, at_accept): (watch::Receiver<Conditions>, EventsAtAccept),
    delays: &DelayTimer,
    number: u64,
) -> ConnectionEnd {
    unstalled(&conditions, Direction::ToServer).await;
    let mut store = match timeout(CONNECT_TIMEOUT, upstream.connect()).await {
        Ok(Ok(store)) => store,
        Ok(Err(error)) => return ConnectionEnd::Unreachable(error),
        Err(_) => return ConnectionEnd::Unreachable(io::ErrorKind::TimedOut.into()),
    };
    let mut session = Session {
        client_stream: stream,
        server_stream: &mut store,
        client: Buffer::new(),
        server: Buffer::new(),
        commands: Commands::default(),
        notice: Framer::new(1),
        deprecate_eof: false,
        samplers: Direction::BOTH.map(|direction| LossSampler::new(number, direction)),
        writes: Writes::new(number),
        delays,
        conditions,
        at_accept,
        metrics,
        counts,
    };
    match timeout(HANDSHAKE_TIMEOUT, session.authenticate()).await {
        Ok(Ok(())) => {}
        Ok(Err(end)) => return end,
        Err(_) => return ConnectionEnd::HandshakeTimeout,
    }
    match session.serve_commands().await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

/// Counts one command in flight until it is dropped.
struct InFlightGuard<'a>(&'a Metrics);

impl<'a> InFlightGuard<'a> {
    /// Also returns the number of commands in flight, including this one.
    fn take(metrics: &'a Metrics) -> (Self, u64) {
        let others = metrics.in_flight.fetch_add(1, Ordering::Relaxed);
        (Self(metrics), others + 1)
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Session<'a> {
    client_stream: &'a mut Stream,
    server_stream: &'a mut Stream,
    client: Buffer,
    server: Buffer,
    commands: Commands,
    /// Parses unsolicited packets of the server: it may send an ERR before it closes (timeout, shutdown).
    notice: Framer,
    deprecate_eof: bool,
    /// Client to server, server to client.
    samplers: [LossSampler; 2],
    writes: Writes,
    delays: &'a DelayTimer,
    conditions: watch::Receiver<Conditions>,
    at_accept: EventsAtAccept,
    metrics: &'a Metrics,
    counts: &'a ListenerMetrics,
}

enum Never {}

/// A command whose first bytes have arrived.
struct ArrivedCommand {
    answer: ResponseKind,
    writes: bool,
}

/// Delay of a command by law and faults.
struct CommandDelay {
    arrival: Instant,
    /// Minimum time between the command and the first byte of its response. Includes the real store's time.
    at_least: Duration,
    /// The part of it before the command was sent to the store.
    late: Duration,
}

impl Session<'_> {
    async fn serve_commands(&mut self) -> Result<Never, ConnectionEnd> {
        let mut draining = self.conditions.clone();
        let drain = async move {
            draining.wait_for(|now| now.draining).await.ok();
        };
        let mut drain = std::pin::pin!(drain);
        loop {
            let ArrivedCommand { answer, writes } = self.next_command(drain.as_mut()).await?;
            if answer == ResponseKind::Close {
                return Err(self.quit().await);
            }
            let arrival = Instant::now();
            self.counts.commands.inc();
            let (ticket, in_flight) = InFlightGuard::take(self.metrics);
            let late = self.hold_back(arrival, writes).await;
            let law = self.conditions.borrow().law.delay(in_flight, &mut rand::rng());
            let delay_plan = CommandDelay { arrival, at_least: late + law, late };
            match if writes { self.write_error() } else { None } {
                Some(error) => self.refuse_write(error, delay_plan).await?,
                None => self.exchange(answer, delay_plan).await?,
            }
            drop(ticket);
        }
    }

    /// Waits for a command. Meanwhile commands without a response are sent to the server.
    async fn next_command(
        &mut self,
        mut drain: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<ArrivedCommand, ConnectionEnd> {
        let (mut changes, at_accept) = (self.conditions.clone(), self.at_accept);
        let lost = async move {
            changes.wait_for(|now| now.loses(Direction::ToServer, at_accept)).await.ok();
        };
        let mut lost = std::pin::pin!(lost);
        loop {
            if self.loses(Direction::ToServer) {
                return Err(ConnectionEnd::Blackhole);
            }
            if let Some(command) = self.scan_for_command().map_err(client)? {
                return Ok(command);
            }
            self.send_scanned().await.map_err(|_| ConnectionEnd::Closed)?;
            tokio::select! {
                biased;
                read = self.client.fill(self.client_stream) => match read {
                    Ok(0) if self.commands.inside() => return Err(client(Malformed::Truncated)),
                    Ok(0) | Err(_) => return Err(ConnectionEnd::Closed),
                    Ok(_) => {}
                },
                read = self.server.fill(self.server_stream) => match read {
                    Ok(0) | Err(_) => return Err(ConnectionEnd::Closed),
                    Ok(_) => self.relay_notice().await?,
                },
                () = &mut lost => return Err(ConnectionEnd::Blackhole),
                () = &mut drain => return Err(ConnectionEnd::Drained),
            }
        }
    }

    /// Scans the client's bytes up to the first bytes of the next command that has a response.
    fn scan_for_command(&mut self) -> Result<Option<ArrivedCommand>, Malformed> {
        loop {
            let mut rest = self.client.unscanned();
            let step = self.commands.next(&mut rest)?;
            let left = rest.len();
            self.client.scanned_but(left);
            match step {
                // An incomplete header stays here: the command may have to be delayed.
                Step::More if self.commands.in_header() => return Ok(None),
                Step::More => {
                    self.client.release();
                    return Ok(None);
                }
                Step::Arrived(answer) => {
                    let writes = self.writes.begins(self.commands.prefix());
                    if answer != ResponseKind::Nothing {
                        return Ok(Some(ArrivedCommand { answer, writes }));
                    }
                }
                Step::Ended => {
                    self.client.release();
                    self.commands.end_of_command();
                }
            }
        }
    }

    /// Applies latency, stall, and the retransmission delay of lost segments before the command is sent. Returns the delay.
    async fn hold_back(&mut self, arrival: Instant, writes: bool) -> Duration {
        let stalls = |now: &Conditions| now.to_server.stall || writes && now.stall_writes;
        let (latency, losses, stall) = {
            let now = self.conditions.borrow();
            (now.command_latency(&mut rand::rng()), [now.to_server.loss, now.to_client.loss], stalls(&now))
        };
        let lost: Duration =
            std::iter::zip(&mut self.samplers, losses).map(|(each, loss)| each.retransmission(loss).0).sum();
        let delay = latency + lost;
        if delay == Duration::ZERO && !stall {
            return delay;
        }
        self.delays.wait(arrival, delay).await;
        // As in `unstalled`.
        self.conditions.clone().wait_for(|now| !stalls(now)).await.ok();
        arrival.elapsed()
    }

    /// Applies the law: the response is not sent earlier. Returns how long it was held.
    async fn hold_answer(&self, delay_plan: &CommandDelay) -> Duration {
        let now = Instant::now();
        if delay_plan.at_least == delay_plan.late || delay_plan.arrival + delay_plan.at_least <= now {
            return Duration::ZERO;
        }
        self.delays.wait(delay_plan.arrival, delay_plan.at_least).await;
        now.elapsed()
    }

    /// Relays one command and its response.
    async fn exchange(&mut self, answer: ResponseKind, delay_plan: CommandDelay) -> Result<(), ConnectionEnd> {
        let mut delay_plan = Some(delay_plan);
        let mut response = Response::new(answer, 0, self.deprecate_eof);
        let mut sending = true;
        let mut replies = Framer::new(0);
        let mut sent_at = None;
        loop {
            if sending && self.scan_command().map_err(client)? {
                sending = false;
                let first_seq = self.commands.end_of_command();
                if !response.begun() {
                    response = Response::new(answer, first_seq, self.deprecate_eof);
                }
            }
            self.send_scanned().await.map_err(ConnectionEnd::Lost)?;
            let sent_at = *sent_at.get_or_insert_with(Instant::now);
            // The client is not read while it waits. Like a real store, the proxy notices a closed connection when it answers, and the
            // abandoned command stays in flight until then.
            tokio::select! {
                biased;
                read = self.server.fill(self.server_stream) => {
                    match read {
                        Ok(0) if response.inside() => return Err(server(Malformed::Truncated)),
                        Ok(0) => return Err(ConnectionEnd::Lost(io::ErrorKind::UnexpectedEof.into())),
                        Ok(_) => {}
                        Err(error) => return Err(ConnectionEnd::Lost(error)),
                    }
                    let progress = response.feed(self.server.unscanned()).map_err(server)?;
                    if progress.done {
                        self.metrics.upstream.observe(sent_at.elapsed().as_secs_f64());
                    }
                    if let Some(delay_plan) = delay_plan.take() {
                        let added = delay_plan.late + self.hold_answer(&delay_plan).await;
                        self.metrics.added_delay.observe(added.as_secs_f64());
                    }
                    self.relay_to_client(progress.taken).await?;
                    if progress.done {
                        if let Some(statement) = response.statement() {
                            self.writes.prepared(statement);
                        }
                        if !self.server.is_empty() {
                            self.relay_notice().await?;
                        }
                        // The server answered before it had the whole command. Its state is unknown.
                        return if sending { Err(ConnectionEnd::Closed) } else { Ok(()) };
                    }
                }
                read = self.client.fill(self.client_stream),
                    if self.client.has_room() && (sending || answer == ResponseKind::Authentication) => {
                    match read {
                        Ok(0) if sending || replies.inside() => return Err(client(Malformed::Truncated)),
                        Ok(0) | Err(_) => return Err(ConnectionEnd::Closed),
                        Ok(_) if sending => {}
                        Ok(_) => scan_replies(&mut self.client, &mut replies, &mut response).map_err(client)?,
                    }
                }
            }
        }
    }

    /// Scans more of the current command. True: it is complete.
    fn scan_command(&mut self) -> Result<bool, Malformed> {
        let mut rest = self.client.unscanned();
        let step = self.commands.next(&mut rest)?;
        let left = rest.len();
        self.client.scanned_but(left);
        self.client.release();
        Ok(step == Step::Ended)
    }

    async fn send_scanned(&mut self) -> io::Result<()> {
        let pending = self.client.pending().len();
        if pending > 0 {
            self.server_stream.write_all(self.client.pending()).await?;
            self.client.sent(pending);
        }
        Ok(())
    }

    /// Sends the next `bytes`, which were scanned.
    async fn relay_to_client(&mut self, bytes: usize) -> Result<(), ConnectionEnd> {
        let left = self.server.unscanned().len() - bytes;
        self.server.scanned_but(left);
        self.server.release();
        self.send_to_client(bytes).await
    }

    /// Sends the next `bytes`, which were released, or loses them in a black hole.
    async fn send_to_client(&mut self, bytes: usize) -> Result<(), ConnectionEnd> {
        unstalled(&self.conditions, Direction::ToClient).await;
        if !self.loses(Direction::ToClient) {
            self.client_stream.write_all(self.server.pending()).await.map_err(|_| ConnectionEnd::Closed)?;
        }
        self.server.sent(bytes);
        Ok(())
    }

    fn loses(&self, direction: Direction) -> bool {
        self.conditions.borrow().loses(direction, self.at_accept)
    }

    async fn relay_notice(&mut self) -> Result<(), ConnectionEnd> {
        let mut rest = self.server.unscanned();
        let bytes = rest.len();
        while let Some(event) = self.notice.next(&mut rest) {
            if event == Event::Start && self.notice.packet().prefix != [0xff] {
                return Err(server(Malformed::Unsolicited));
            }
        }
        self.relay_to_client(bytes).await
    }

    async fn quit(&mut self) -> ConnectionEnd {
        let farewell = async {
            while !self.scan_command().map_err(client)? {
                self.send_scanned().await.map_err(|_| ConnectionEnd::Closed)?;
                if !matches!(self.client.fill(self.client_stream).await, Ok(1..)) {
                    return Err(client(Malformed::Truncated));
                }
            }
            self.send_scanned().await.map_err(|_| ConnectionEnd::Closed)?;
            while let Ok(1..) = self.server.fill(self.server_stream).await {
                let bytes = self.server.unscanned().len();
                self.relay_to_client(bytes).await?;
            }
            Ok::<_, ConnectionEnd>(())
        };
        match timeout(QUIT_TIMEOUT, farewell).await {
            Ok(Err(end)) => end,
            _ => ConnectionEnd::Closed,
        }
    }
}

/// Scans the client's packets within COM_CHANGE_USER.
fn scan_replies(buffer: &mut Buffer, replies: &mut Framer, response: &mut Response) -> Result<(), Malformed> {
    let mut rest = buffer.unscanned();
    while let Some(event) = replies.next(&mut rest) {
        if event == Event::Start {
            response.client_packet(replies.packet().seq)?;
        }
    }
    buffer.scanned_but(0);
    buffer.release();
    Ok(())
}
