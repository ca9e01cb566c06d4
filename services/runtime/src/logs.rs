//! Logs: on stdout as JSON, one object per line, filtered by `RUST_LOG` (default `info`); exported by OTLP as well if telemetry is on.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

use crate::telemetry::log_bridge::ForwardLayer;

/// Sets the subscriber of the process. The format is JSON, unless stdout is a terminal. A second call has no effect.
pub fn init() {
    if std::io::stdout().is_terminal() {
        // Fails only in a test that starts two services in one process.
        drop(registry().with(filter()).with(fmt::layer()).with(ForwardLayer).try_init());
    } else {
        init_json(std::io::stdout);
    }
}

/// As `init`, with JSON to this writer.
pub fn init_json(writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    let json = fmt::layer().json().flatten_event(true).with_current_span(false).with_writer(writer);
    drop(registry().with(filter()).with(json).with(ForwardLayer).try_init());
}

fn filter() -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"))
}
