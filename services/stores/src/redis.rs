//! One multiplexed connection to Redis, which pipelines the commands of all requests.

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
    breaker::{Attempt, Breaker},
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

/// The server's address in spans.
struct Address {
    host: String,
    /// `None`: a Unix socket.
    port: Option<u16>,
}

/// While Redis is down, one command is sent per this time, and the others fail at once.
const BACK_OFF: Duration = Duration::from_millis(250);
/// Consecutive timeouts after which Redis counts as down.
const MAX_TIMEOUTS: u32 = 5;

/// A handle of the shared connection with a deadline and a span. It sends nothing while Redis is down. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
    /// Of all commands.
    deadline: Option<Instant>,
    /// The parent span of all commands.
    span: Span,
}

struct Inner {
    address: Address,
    breaker: Breaker,
    /// The longest duration of a command: a new connection, then the response.
    longest_command: Duration,
    metrics: RedisMetrics,
    config: RedisConfig,
    connection: Mutex<NumberedConnection>,
}

/// The connection in use. Each replacement increments the number.
#[derive(Clone)]
struct NumberedConnection {
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

    /// A connection that connects on first use, and again after it broke. Every command has a timeout.
    ///
    /// # Errors
    /// The address is not valid.
    pub fn open(&self) -> RedisResult<ConnectionManager> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(Duration::from_millis(self.response_timeout_ms)))
            .set_connection_timeout(Some(Duration::from_millis(self.connect_timeout_ms)))
            // One attempt: requests wait for it, and the next request tries again.
            .set_number_of_retries(0)
            // With the default of 50, a burst of requests would wait for the channel before it waits for Redis.
            .set_pipeline_buffer_size(1024);
        Client::open(self.url.as_str())?.get_connection_manager_lazy(config)
    }

    /// As `open`, with a circuit breaker.
    ///
    /// # Errors
    /// The address is not valid.
    pub fn guarded(&self, metrics: RedisMetrics) -> RedisResult<Redis> {
        let inner = Inner {
            address: Address::of(Client::open(self.url.as_str())?.get_connection_info().addr()),
            breaker: Breaker::new("redis", BACK_OFF, MAX_TIMEOUTS),
            longest_command: Duration::from_millis(self.connect_timeout_ms + self.response_timeout_ms),
            metrics,
            config: self.clone(),
            connection: Mutex::new(NumberedConnection { number: 0, manager: self.open()? }),
        };
        Ok(Redis { inner: Arc::new(inner), deadline: None, span: Span::NONE })
    }
}

impl Redis {
    /// A handle for commands with this deadline, as child spans of `span`.
    #[must_use]
    pub fn until(&self, deadline: Instant, span: &Span) -> Self {
        Self { deadline: Some(deadline), ..self.traced(span) }
    }

    /// A handle for commands as child spans of `span`.
    #[must_use]
    pub fn traced(&self, span: &Span) -> Self {
        Self { inner: Arc::clone(&self.inner), deadline: self.deadline, span: span.clone() }
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
        let Address { host, port } = &self.inner.address;
        span.set_all([
            (attribute::DB_SYSTEM_NAME, system::REDIS.into()),
            (attribute::SERVER_ADDRESS, host.as_str().into()),
        ]);
        if let Some(port) = port {
            span.set(attribute::SERVER_PORT, *port);
        }
        span
    }

    /// The deadline, if it comes before the connection's timeouts. A later one needs no timer.
    fn limit(&self, now: Instant) -> Option<Instant> {
        self.deadline.filter(|deadline| *deadline < now + self.inner.longest_command)
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

impl Inner {
    async fn command(&self, command: &Cmd, now: Instant) -> RedisResult<Value> {
        let (attempt, NumberedConnection { number, mut manager }) = self.admit(now)?;
        let answer = manager.send_packed_command(command).await;
        self.record(attempt, number, now, answer)
    }

    async fn pipeline(
        &self,
        pipeline: &Pipeline,
        (offset, count): (usize, usize),
        now: Instant,
    ) -> RedisResult<Vec<Value>> {
        let (attempt, NumberedConnection { number, mut manager }) = self.admit(now)?;
        let answers = manager.send_packed_commands(pipeline, offset, count).await;
        self.record(attempt, number, now, answers)
    }

    fn admit(&self, now: Instant) -> RedisResult<(Attempt<'_>, NumberedConnection)> {
        let Some(attempt) = self.breaker.admit(now) else {
            self.metrics.skipped.inc();
            return Err(connection_error("redis is down"));
        };
        Ok((attempt, self.connection().clone()))
    }

    /// Records the result of a command in the metrics and the breaker.
    fn record<T>(&self, attempt: Attempt<'_>, number: u64, sent: Instant, result: RedisResult<T>) -> RedisResult<T> {
        let now = Instant::now();
        self.metrics.seconds.observe((now - sent).as_secs_f64());
        match &result {
            // The connection has been replaced since. The timeout says nothing about the new one.
            Err(error) if error.is_timeout() && self.connection().number != number => {}
            Err(error) if error.is_timeout() => {
                if attempt.timed_out(now) {
                    self.replace(number);
                }
            }
            Err(error) if error.is_io_error() || error.is_connection_dropped() => _ = attempt.failed(now),
            // Any response shows that Redis works, also an error of the command.
            _ => attempt.succeeded(),
        }
        result
    }

    /// Replaces a connection whose host may have vanished. The connection manager does not notice that until TCP gives up after many
    /// minutes. The next probe connects.
    fn replace(&self, number: u64) {
        let mut connection = self.connection();
        if connection.number != number {
            return;
        }
        match self.config.open() {
            Ok(manager) => *connection = NumberedConnection { number: number + 1, manager },
            Err(error) => tracing::error!(%error, "cannot create a new connection to redis, keeping the old one"),
        }
    }

    fn connection(&self) -> MutexGuard<'_, NumberedConnection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a command in a separate task, which reports the result to the breaker also after the caller's deadline. Otherwise, if all callers had
/// short deadlines, a server that does not respond would never count as down, and all of them would wait for it.
async fn detached<T: Send + 'static>(
    limit: Instant,
    command: impl Future<Output = RedisResult<T>> + Send + 'static,
) -> RedisResult<T> {
    match tokio::time::timeout_at(limit, tokio::spawn(command)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_panicked)) => Err(connection_error("the task of the command panicked")),
        Err(_elapsed) => Err(connection_error("the deadline was exceeded")),
    }
}

/// The command's name. Spans do not contain keys and values.
fn operation(command: &Cmd) -> &str {
    match command.args_iter().next() {
        Some(Arg::Simple(name)) => str::from_utf8(name).unwrap_or_default(),
        _ => "",
    }
}

fn connection_error(reason: &'static str) -> RedisError {
    RedisError::from(io::Error::new(io::ErrorKind::NotConnected, reason))
}

/// Marks the span as failed if the result is an error.
fn record_error<T>(span: &Span, result: RedisResult<T>) -> RedisResult<T> {
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
                None => self.inner.command(cmd, now).await,
                Some(limit) => {
                    let (inner, cmd) = (Arc::clone(&self.inner), cmd.clone());
                    detached(limit, async move { inner.command(&cmd, now).await }).await
                }
            };
            record_error(&span, answer)
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
                None => self.inner.pipeline(pipeline, (offset, count), now).await,
                Some(limit) => {
                    let (inner, pipeline) = (Arc::clone(&self.inner), pipeline.clone());
                    detached(limit, async move { inner.pipeline(&pipeline, (offset, count), now).await }).await
                }
            };
            record_error(&span, answers)
        })
    }

    fn get_db(&self) -> i64 {
        self.inner.connection().manager.get_db()
    }
}
