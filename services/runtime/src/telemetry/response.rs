//! Details of the receiver's response that OpenTelemetry's exporter does not return: whether a failed batch may be retried, and how many
//! items were rejected. The exporter only logs them, so this module reads its log events during an export.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};

/// The target of the exporter's log events.
const EXPORTER: &str = "opentelemetry-otlp";
/// The event for a gRPC code or HTTP status after which the batch must not be retried.
const NOT_RETRYABLE: &str = "Export.Failed.NonRetryable";
/// Fields of the event after a partial success.
const REJECTED: [&str; 2] = ["rejected_spans", "rejected_log_records"];
const MESSAGE: &str = "error_message";

/// The response to the last batch of one signal. Only one batch of a signal is in flight at a time.
#[derive(Debug, Default)]
pub(super) struct ExportResponse {
    is_refused: AtomicBool,
    rejected: AtomicU64,
    message: Mutex<String>,
}

struct Listener(Arc<ExportResponse>);

impl ExportResponse {
    /// Returns the subscriber with which an export must run. It drops all other log events of the export: exporting them would create further
    /// events for ever.
    pub fn listen() -> (Arc<Self>, Dispatch) {
        let response = Arc::<Self>::default();
        let dispatch = Dispatch::new(Listener(Arc::clone(&response)));
        (response, dispatch)
    }

    pub fn reset(&self) {
        self.is_refused.store(false, Relaxed);
        self.rejected.store(0, Relaxed);
        self.message().clear();
    }

    /// The receiver refused the whole batch.
    pub fn is_refused(&self) -> bool {
        self.is_refused.load(Relaxed)
    }

    /// Rejected items of a batch that was accepted otherwise.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Relaxed)
    }

    /// The receiver's error message, or an empty text.
    pub fn message(&self) -> std::sync::MutexGuard<'_, String> {
        self.message.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target() == EXPORTER && *metadata.level() <= LevelFilter::WARN
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        if event.metadata().name() == NOT_RETRYABLE {
            self.0.is_refused.store(true, Relaxed);
        }
        event.record(&mut Reader(&self.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Reader<'a>(&'a ExportResponse);

impl Visit for Reader<'_> {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if REJECTED.contains(&field.name()) {
            self.0.rejected.store(u64::try_from(value).unwrap_or(0), Relaxed);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            value.clone_into(&mut self.0.message());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
