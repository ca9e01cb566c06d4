//! Log lines on their way to the collector, beside those on stdout.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    layer::{Context as LayerContext, Layer},
    registry::LookupSpan,
};

/// Names of the fields by which a line belongs to a trace, in stdout's JSON as well.
pub const TRACE_ID: &str = "trace_id";
pub const SPAN_ID: &str = "span_id";

pub(super) type Bridge = OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger>;

/// The subscriber is the process's, and is there before any telemetry is: whoever starts last gets the lines.
static BRIDGE: RwLock<Weak<Bridge>> = RwLock::new(Weak::new());

/// For as long as it is kept.
pub(super) fn forward_to(bridge: &Arc<Bridge>) {
    *BRIDGE.write().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(bridge);
}

/// Sends what stdout gets, from `info` up.
#[derive(Debug)]
pub(crate) struct Forward;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Forward {
    fn on_event(&self, event: &Event<'_>, context: LayerContext<'_, S>) {
        if *event.metadata().level() > Level::INFO {
            return;
        }
        let bridge = BRIDGE.read().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(bridge) = bridge {
            bridge.on_event(event, context);
        }
    }
}
