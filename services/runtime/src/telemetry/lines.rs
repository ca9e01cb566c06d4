//! Log lines on their way to the collector, beside those on stdout.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context as LayerContext, Layer};

use super::{
    messages,
    outbox::Outbox,
    span::{Value, unix_ns},
};

/// Names of the fields by which a line belongs to a trace, in stdout's JSON as well.
pub const TRACE_ID: &str = "trace_id";
pub const SPAN_ID: &str = "span_id";

/// A line's message, as its fields come by.
struct Line(Vec<u8>);

/// The subscriber is the process's, and is there before any telemetry is: whoever starts last gets the lines.
static OUTBOX: RwLock<Weak<Outbox>> = RwLock::new(Weak::new());

pub(super) fn forward_to(outbox: &Arc<Outbox>) {
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
        let mut line = Line(messages::begin_line(unix_ns(), *metadata.level(), metadata.target()));
        event.record(&mut line);
        outbox.put(&line.0);
    }
}

impl Line {
    fn push(&mut self, field: &Field, value: Value<'_>) {
        messages::line_attribute(&mut self.0, field.name(), value);
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            // 0 is no id.
            TRACE_ID => {
                if let Ok(id @ 1..) = u128::from_str_radix(value, 16) {
                    messages::line_trace(&mut self.0, id);
                }
            }
            SPAN_ID => {
                if let Ok(id @ 1..) = u64::from_str_radix(value, 16) {
                    messages::line_span(&mut self.0, id);
                }
            }
            _ => self.push(field, value.into()),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Int(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Value::Float(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            messages::line_text(&mut self.0, &text);
        } else {
            self.push(field, text.as_str().into());
        }
    }
}
