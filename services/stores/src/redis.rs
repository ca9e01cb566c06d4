//! One multiplexed connection to Redis: commands of all requests share it and are pipelined by it.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contract::spans::{attribute, system};
use redis::{
    Arg, Client, Cmd, ConnectionAddr, Pipeline, RedisError, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
};
use runtime::telemetry::{Kind, Span};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    breaker::{Breaker, Pass},
    metrics::RedisMetrics,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// Address of the server: `redis://host:port` or `unix:///path`.
    pub url: String,
    /// Timeout of a command, in milliseconds.
    pub response_timeout_ms: u64,
    /// Timeout of an attempt to connect, in milliseconds.
    pub connect_timeout_ms: u64,
}

/// As spans tell it.
struct Address {
    host: String,
    /// `None`: a Unix socket.
    port: Option<u16>,
}

/// While Redis is away, one command per this time is sent, and the others fail at once.
const BACK_OFF: Duration = Duration::from_millis(250);
/// Time-outs in a row that count as "away".
const MAX_TIMEOUTS: u32 = 5;

/// The shared connection, as everybody uses it: with a deadline, and not at all while Redis is away. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
    /// Nothing is waited for beyond it.
    deadline: Option<Instant>,
    /// What commands are part of.
    span: Span,
}

struct Shared {
    address: Address,
    breaker: Breaker,
    /// The longest that a command can take: a new connection, then the answer.
    patience: Duration,
    metrics: RedisMetrics,
    config: RedisConfig,
    connection: Mutex<Numbered>,
}

/// The connection in use, and how many there were before it.
#[derive(Clone)]
struct Numbered {
    number: u64,
    manager: ConnectionManager,
}

impl RedisConfig {
    pub fn validate(&self, problems: &mut Vec<String>) {
        if let Err(error) = Client::open(self.url.as_str()) {
            problems.push(format!("redis.url: '{}' is not a Redis address: {error}", self.url));
        }
        for (key, value) in
            [("response_timeout_ms", self.response_timeout_ms), ("connect_timeout_ms", self.connect_timeout_ms)]
        {
            if !(1..=60_000).contains(&value) {
                problems.push(format!("redis.{key}: {value} is not in 1..=60000"));
            }
        }
    }

    /// A connection that connects when first used and again after it broke; every command has a deadline.
    ///
    /// # Errors
    /// The address is not valid.
    pub fn open(&self) -> RedisResult<ConnectionManager> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(Duration::from_millis(self.response_timeout_ms)))
            .set_connection_timeout(Some(Duration::from_millis(self.connect_timeout_ms)))
            // One attempt: requests wait for the reconnect, and the next request makes the next attempt.
            .set_number_of_retries(0)
            // The default of 50 lets a burst of requests wait for the channel before it waits for Redis.
            .set_pipeline_buffer_size(1024);
        Client::open(self.url.as_str())?.get_connection_manager_lazy(config)
    }

    /// `open`, behind a breaker.
    ///
    /// # Errors
    /// The address is not valid.
    pub fn guarded(&self, metrics: RedisMetrics) -> RedisResult<Redis> {
        let shared = Shared {
            address: Address::of(Client::open(self.url.as_str())?.get_connection_info().addr()),
            breaker: Breaker::new("redis", BACK_OFF, MAX_TIMEOUTS),
            patience: Duration::from_millis(self.connect_timeout_ms + self.response_timeout_ms),
            metrics,
            config: self.clone(),
            connection: Mutex::new(Numbered { number: 0, manager: self.open()? }),
        };
        Ok(Redis { shared: Arc::new(shared), deadline: None, span: Span::NONE })
    }
}

impl Redis {
    /// The same connection for work that must be done by then and is part of this span.
    #[must_use]
    pub fn until(&self, deadline: Instant, span: &Span) -> Self {
        Self { deadline: Some(deadline), ..self.traced(span) }
    }

    /// The same connection for work that is part of this span: each command gets one below it.
    #[must_use]
    pub fn traced(&self, span: &Span) -> Self {
        Self { shared: Arc::clone(&self.shared), deadline: self.deadline, span: span.clone() }
    }

    fn command_span(&self, command: &Cmd, now: Instant) -> Span {
        if !self.span.is_recorded() {
            return Span::NONE;
        }
        let operation = operation(command);
        let span = self.child_span(operation, now);
        span.set(attribute::DB_OPERATION_NAME, operation);
        span
    }

    fn pipeline_span(&self, pipeline: &Pipeline, now: Instant) -> Span {
        if !self.span.is_recorded() {
            return Span::NONE;
        }
        let span = self.child_span("PIPELINE", now);
        let first = pipeline.cmd_iter().next().map_or("", operation);
        span.set(attribute::DB_OPERATION_NAME, format!("PIPELINE {first}").as_str());
        span.set(attribute::DB_OPERATION_BATCH_SIZE, pipeline.cmd_iter().count());
        span
    }

    fn child_span(&self, name: &str, now: Instant) -> Span {
        let span = self.span.child_since(Kind::Client, name, now.into_std());
        let Address { host, port } = &self.shared.address;
        span.set_all([
            (attribute::DB_SYSTEM_NAME, system::REDIS.into()),
            (attribute::SERVER_ADDRESS, host.as_str().into()),
        ]);
        if let Some(port) = port {
            span.set(attribute::SERVER_PORT, *port);
        }
        span
    }

    /// A deadline costs a timer, so only one that comes before the connection's own time-outs gets one.
    fn limit(&self, now: Instant) -> Option<Instant> {
        self.deadline.filter(|deadline| *deadline < now + self.shared.patience)
    }
}

impl Address {
    fn of(address: &ConnectionAddr) -> Self {
        match address {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Self { host: host.clone(), port: Some(*port) }
            }
            ConnectionAddr::Unix(path) => Self { host: path.display().to_string(), port: None },
            other => Self { host: other.to_string(), port: None },
        }
    }
}

impl Shared {
    async fn command(&self, command: &Cmd, now: Instant) -> RedisResult<Value> {
        let (pass, Numbered { number, mut manager }) = self.admit(now)?;
        let answer = manager.send_packed_command(command).await;
        self.settle(pass, number, now, answer)
    }

    async fn pipeline(
        &self,
        pipeline: &Pipeline,
        (offset, count): (usize, usize),
        now: Instant,
    ) -> RedisResult<Vec<Value>> {
        let (pass, Numbered { number, mut manager }) = self.admit(now)?;
        let answers = manager.send_packed_commands(pipeline, offset, count).await;
        self.settle(pass, number, now, answers)
    }

    fn admit(&self, now: Instant) -> RedisResult<(Pass<'_>, Numbered)> {
        let Some(pass) = self.breaker.admit(now) else {
            self.metrics.skipped.inc();
            return Err(away("redis is away"));
        };
        Ok((pass, self.connection().clone()))
    }

    /// The answer is there, or the server's time is over.
    fn settle<T>(&self, pass: Pass<'_>, number: u64, sent: Instant, result: RedisResult<T>) -> RedisResult<T> {
        let now = Instant::now();
        self.metrics.seconds.observe((now - sent).as_secs_f64());
        match &result {
            // Says nothing of the connection that has taken the place of its own: the pass is dropped.
            Err(error) if error.is_timeout() && self.connection().number != number => {}
            Err(error) if error.is_timeout() => {
                if pass.timed_out(now) {
                    self.replace(number);
                }
            }
            Err(error) if error.is_io_error() || error.is_connection_dropped() => _ = pass.failed(now),
            // Any answer is one, also an error of a command's own.
            _ => pass.ok(),
        }
        result
    }

    /// A connection whose host has vanished is not broken as far as its manager can see: it would be used until TCP gives it up,
    /// after many minutes. The next probe connects anew.
    fn replace(&self, number: u64) {
        let mut connection = self.connection();
        if connection.number != number {
            return;
        }
        match self.config.open() {
            Ok(manager) => *connection = Numbered { number: number + 1, manager },
            Err(error) => tracing::error!(%error, "no new connection to redis, the old one stays"),
        }
    }

    fn connection(&self) -> MutexGuard<'_, Numbered> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a command whose caller may not have the time that Redis has, and which is to tell the breaker nevertheless how it went: if all
/// callers had too little time, a server that swallows commands would never count as away, and each of them would wait for it.
async fn detached<T: Send + 'static>(
    limit: Instant,
    command: impl Future<Output = RedisResult<T>> + Send + 'static,
) -> RedisResult<T> {
    match tokio::time::timeout_at(limit, tokio::spawn(command)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_panicked)) => Err(away("the command was cut short")),
        Err(_elapsed) => Err(away("the deadline ran out")),
    }
}

/// The command's name; keys and values are nobody's business.
fn operation(command: &Cmd) -> &str {
    match command.args_iter().next() {
        Some(Arg::Simple(name)) => str::from_utf8(name).unwrap_or_default(),
        _ => "",
    }
}

fn away(reason: &'static str) -> RedisError {
    RedisError::from(io::Error::new(io::ErrorKind::NotConnected, reason))
}

/// The result; an error is told to its span.
fn traced<T>(span: &Span, result: RedisResult<T>) -> RedisResult<T> {
    if let Err(error) = &result {
        span.fail(match () {
            () if error.is_timeout() => "timeout",
            () if error.is_io_error() || error.is_connection_dropped() => "connection",
            () => "command",
        });
    }
    result
}

impl ConnectionLike for Redis {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let now = Instant::now();
            let span = self.command_span(cmd, now);
            let answer = match self.limit(now) {
                None => self.shared.command(cmd, now).await,
                Some(limit) => {
                    let (shared, cmd) = (Arc::clone(&self.shared), cmd.clone());
                    detached(limit, async move { shared.command(&cmd, now).await }).await
                }
            };
            traced(&span, answer)
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let now = Instant::now();
            let span = self.pipeline_span(pipeline, now);
            let answers = match self.limit(now) {
                None => self.shared.pipeline(pipeline, (offset, count), now).await,
                Some(limit) => {
                    let (shared, pipeline) = (Arc::clone(&self.shared), pipeline.clone());
                    detached(limit, async move { shared.pipeline(&pipeline, (offset, count), now).await }).await
                }
            };
            traced(&span, answers)
        })
    }

    fn get_db(&self) -> i64 {
        self.shared.connection().manager.get_db()
    }
}
