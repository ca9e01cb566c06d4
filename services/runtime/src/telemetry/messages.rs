//! What has ended, in OpenTelemetry's messages.

use contract::spans::{SCHEMA_URL, resource};
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span, status::StatusCode},
};
use tracing::Level;

use super::{
    context::Context,
    lines::Line,
    span::{Ended, Kind, Value},
};

/// Who tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `api`, `monitor`, …
    pub name: &'static str,
    /// Where it listens or what it is called, which tells it from its likes on this machine.
    pub listen: String,
}

pub(super) struct Messages {
    resource: Resource,
    scope: InstrumentationScope,
}

impl Messages {
    pub fn of(service: &Service) -> Self {
        let text = |key, value: &str| attribute(key, &Value::Text(value.to_owned()));
        let resource = Resource {
            attributes: vec![
                text(resource::SERVICE_NAME, service.name),
                text(resource::SERVICE_NAMESPACE, resource::NAMESPACE),
                text(resource::SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
                text(resource::SERVICE_INSTANCE_ID, &format!("{}/{}", hostname(), service.listen)),
            ],
            ..Resource::default()
        };
        Self { resource, scope: InstrumentationScope { name: "testbed".into(), ..InstrumentationScope::default() } }
    }

    pub fn spans(&self, batch: &[Ended]) -> ExportTraceServiceRequest {
        let (resource, scope) = (Some(self.resource.clone()), Some(self.scope.clone()));
        let spans = batch.iter().map(span).collect();
        let scope_spans = vec![ScopeSpans { scope, spans, schema_url: SCHEMA_URL.into() }];
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans, schema_url: SCHEMA_URL.into() }],
        }
    }

    pub fn lines(&self, batch: &[Line]) -> ExportLogsServiceRequest {
        let (resource, scope) = (Some(self.resource.clone()), Some(self.scope.clone()));
        let log_records = batch.iter().map(record).collect();
        let scope_logs = vec![ScopeLogs { scope, log_records, schema_url: SCHEMA_URL.into() }];
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource, scope_logs, schema_url: SCHEMA_URL.into() }],
        }
    }
}

/// In a container its id.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_unreadable| "localhost".into(), |name| name.trim().to_owned())
}

fn span(ended: &Ended) -> Span {
    let Ended { context, parent_id, kind, started_ns, ended_ns, details } = ended;
    let link = |to: &Context| span::Link {
        trace_id: trace_id(to.trace_id),
        span_id: span_id(to.span_id),
        flags: u32::from(to.sampled),
        ..span::Link::default()
    };
    let kind = match kind {
        Kind::Internal => span::SpanKind::Internal,
        Kind::Server => span::SpanKind::Server,
        Kind::Client => span::SpanKind::Client,
    };
    let code = if details.failed { StatusCode::Error } else { StatusCode::Unset };
    Span {
        trace_id: trace_id(context.trace_id),
        span_id: span_id(context.span_id),
        parent_span_id: span_id(*parent_id),
        flags: u32::from(context.sampled),
        name: details.name.clone().into_owned(),
        kind: kind.into(),
        start_time_unix_nano: *started_ns,
        end_time_unix_nano: *ended_ns,
        attributes: attributes(&details.attributes),
        links: details.link.iter().map(link).collect(),
        status: Some(Status { message: String::new(), code: code.into() }),
        ..Span::default()
    }
}

fn record(line: &Line) -> LogRecord {
    let (severity, text) = match line.level {
        Level::ERROR => (SeverityNumber::Error, "ERROR"),
        Level::WARN => (SeverityNumber::Warn, "WARN"),
        Level::INFO => (SeverityNumber::Info, "INFO"),
        Level::DEBUG => (SeverityNumber::Debug, "DEBUG"),
        Level::TRACE => (SeverityNumber::Trace, "TRACE"),
    };
    let mut attributes = attributes(&line.fields);
    attributes.push(attribute("code.namespace", &Value::Word(line.target)));
    LogRecord {
        time_unix_nano: line.at_ns,
        observed_time_unix_nano: line.at_ns,
        severity_number: severity.into(),
        severity_text: text.into(),
        body: Some(any(&Value::Text(line.message.clone()))),
        attributes,
        trace_id: trace_id(line.trace_id),
        span_id: span_id(line.span_id),
        ..LogRecord::default()
    }
}

/// 0 is none, which on the wire is nothing.
fn trace_id(id: u128) -> Vec<u8> {
    if id == 0 { Vec::new() } else { id.to_be_bytes().to_vec() }
}

fn span_id(id: u64) -> Vec<u8> {
    if id == 0 { Vec::new() } else { id.to_be_bytes().to_vec() }
}

fn attributes(list: &[(&'static str, Value)]) -> Vec<KeyValue> {
    list.iter().map(|(key, value)| attribute(key, value)).collect()
}

fn attribute(key: &str, value: &Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

fn any(value: &Value) -> AnyValue {
    let value = match value {
        Value::Word(word) => any_value::Value::StringValue((*word).to_owned()),
        Value::Text(text) => any_value::Value::StringValue(text.clone()),
        Value::Int(number) => any_value::Value::IntValue(*number),
        Value::Float(number) => any_value::Value::DoubleValue(*number),
        Value::Bool(value) => any_value::Value::BoolValue(*value),
    };
    AnyValue { value: Some(value) }
}
