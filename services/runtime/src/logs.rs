//! Logs: JSON lines on stdout (one object a line), filtered by `RUST_LOG` (default `info`), and by OTLP where telemetry has an endpoint.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

use crate::telemetry::lines::Forward;

/// Sets the process-wide subscriber; JSON unless stdout is a terminal. A second call changes nothing.
pub fn init() {
    if std::io::stdout().is_terminal() {
        // Only a test that starts two services in one process gets here twice.
        drop(registry().with(filter()).with(fmt::layer()).with(Forward).try_init());
    } else {
        init_json(std::io::stdout);
    }
}

/// The same with JSON to wherever.
pub fn init_json(writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    let json = fmt::layer().json().flatten_event(true).with_current_span(false).with_writer(writer);
    drop(registry().with(filter()).with(json).with(Forward).try_init());
}

fn filter() -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"))
}
