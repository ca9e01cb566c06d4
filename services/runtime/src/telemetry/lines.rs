//! Log lines on their way to the collector, beside those on stdout.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context as LayerContext, Layer};

use super::{
    outbox::Outbox,
    span::{Value, unix_ns},
};

/// Names of the fields by which a line belongs to a trace, in stdout's JSON as well.
pub const TRACE_ID: &str = "trace_id";
pub const SPAN_ID: &str = "span_id";

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub at_ns: u64,
    pub level: Level,
    pub target: &'static str,
    pub message: String,
    pub fields: Vec<(&'static str, Value)>,
    /// 0: none.
    pub trace_id: u128,
    pub span_id: u64,
}

/// The subscriber is the process's, and is there before any telemetry is: whoever starts last gets the lines.
static OUTBOX: RwLock<Weak<Outbox<Line>>> = RwLock::new(Weak::new());

pub(super) fn forward_to(outbox: &Arc<Outbox<Line>>) {
    *OUTBOX.write().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(outbox);
}

/// Sends what stdout gets, from `info` up: what sending itself says is below that.
#[derive(Debug)]
pub(crate) struct Forward;

impl<S: Subscriber> Layer<S> for Forward {
    fn on_event(&self, event: &Event<'_>, _context: LayerContext<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return;
        }
        let Some(outbox) = OUTBOX.read().unwrap_or_else(PoisonError::into_inner).upgrade() else { return };
        let mut line = Line {
            at_ns: unix_ns(),
            level: *metadata.level(),
            target: metadata.target(),
            message: String::new(),
            fields: Vec::new(),
            trace_id: 0,
            span_id: 0,
        };
        event.record(&mut line);
        outbox.put(line);
    }
}

impl Line {
    fn push(&mut self, field: &Field, value: Value) {
        self.fields.push((field.name(), value));
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            TRACE_ID => self.trace_id = u128::from_str_radix(value, 16).unwrap_or(0),
            SPAN_ID => self.span_id = u64::from_str_radix(value, 16).unwrap_or(0),
            _ => self.push(field, value.to_owned().into()),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Int(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Int(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Value::Float(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Bool(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.push(field, text.into());
        }
    }
}
