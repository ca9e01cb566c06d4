//! Forwards log lines to OpenTelemetry's log bridge, in addition to stdout.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    layer::{Context as LayerContext, Layer},
    registry::LookupSpan,
};

/// Fields that connect a log line with its trace, on stdout as well.
pub const TRACE_ID: &str = "trace_id";
pub const SPAN_ID: &str = "span_id";

pub(super) type LogBridge = OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger>;

/// A process has one subscriber, which is set before telemetry starts. The telemetry that started last gets the lines.
static BRIDGE: RwLock<Weak<LogBridge>> = RwLock::new(Weak::new());

/// Until the bridge is dropped.
pub(super) fn forward_to(bridge: &Arc<LogBridge>) {
    *BRIDGE.write().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(bridge);
}

/// Forwards the lines that stdout gets, of level `info` and above.
#[derive(Debug)]
pub(crate) struct ForwardLayer;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for ForwardLayer {
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
