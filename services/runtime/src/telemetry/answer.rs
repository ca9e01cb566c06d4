//! What the receiver answered, as far as OpenTelemetry's exporter keeps it from its caller: whether a failed batch may be sent again, and
//! how many items of a batch were refused. It only logs both, so this listens to its log while a batch is under way.

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

/// Whose log it is.
const EXPORTER: &str = "opentelemetry-otlp";
/// The event by which it says that the receiver will not have a batch: a code of gRPC or a status of HTTP that forbids to try again.
const NOT_RETRYABLE: &str = "Export.Failed.NonRetryable";
/// Fields of the event that follows an answer of partial success.
const REJECTED: [&str; 2] = ["rejected_spans", "rejected_log_records"];
const WHY: &str = "error_message";

/// Of one kind of message: only one batch of a kind is under way at a time.
#[derive(Debug, Default)]
pub(super) struct Answer {
    refused: AtomicBool,
    rejected: AtomicU64,
    why: Mutex<String>,
}

struct Listener(Arc<Answer>);

impl Answer {
    /// With what an export must run within for this to hear of it. All else that happens there is not logged at all: lines about sending
    /// lines would never end.
    pub fn listen() -> (Arc<Self>, Dispatch) {
        let answer = Arc::<Self>::default();
        let dispatch = Dispatch::new(Listener(Arc::clone(&answer)));
        (answer, dispatch)
    }

    pub fn forget(&self) {
        self.refused.store(false, Relaxed);
        self.rejected.store(0, Relaxed);
        self.why().clear();
    }

    /// The whole batch.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Relaxed)
    }

    /// Items of a batch that was taken otherwise.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Relaxed)
    }

    /// The receiver's own words, if it had any.
    pub fn why(&self) -> std::sync::MutexGuard<'_, String> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
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
            self.0.refused.store(true, Relaxed);
        }
        event.record(&mut Reader(&self.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Reader<'a>(&'a Answer);

impl Visit for Reader<'_> {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if REJECTED.contains(&field.name()) {
            self.0.rejected.store(u64::try_from(value).unwrap_or(0), Relaxed);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == WHY {
            value.clone_into(&mut self.0.why());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
