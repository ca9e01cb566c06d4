//! Spans and lines as OpenTelemetry's messages, written field by field while they come about: what is sent is what was written, and
//! nothing is built in between. The numbers are those of `opentelemetry/proto`; a test reads them back by its own types.

use std::fmt::Display;

use contract::spans::{SCHEMA_URL, resource};
use tracing::Level;

use super::{
    context::Context,
    span::{Kind, Value},
    wire,
};

/// Of a span's own fields.
const SPAN_ATTRIBUTES: u32 = 9;
/// Of a line's.
const LINE_ATTRIBUTES: u32 = 6;
/// Most spans have less; one of jemalloc's sizes.
const SPAN_BYTES: usize = 448;

/// Who tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `api`, `monitor`, …
    pub name: &'static str,
    /// Where it listens or what it is called, which tells it from its likes on this machine.
    pub listen: String,
}

/// What stands around the spans, or the lines, of a message: the numbers are the same.
pub(super) struct Envelope {
    /// Fields of `ResourceSpans`.
    resource: Vec<u8>,
    /// Fields of `ScopeSpans`.
    scope: Vec<u8>,
}

/// Field of a span or line within its `Scope…`.
pub(super) const ITEM: u32 = 2;

impl Envelope {
    const RESOURCE: u32 = 1;
    const SCOPE: u32 = 2;
    const SCHEMA: u32 = 3;

    pub fn of(service: &Service) -> Self {
        let instance = format!("{}/{}", hostname(), service.listen);
        let mut attributes = Vec::new();
        for (key, value) in [
            (resource::SERVICE_NAME, service.name),
            (resource::SERVICE_NAMESPACE, resource::NAMESPACE),
            (resource::SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
            (resource::SERVICE_INSTANCE_ID, instance.as_str()),
        ] {
            attribute(&mut attributes, 1, key, value.into());
        }
        let mut name = Vec::new();
        wire::bytes(&mut name, 1, b"testbed");
        let message = |first: &[u8]| {
            let mut out = Vec::new();
            wire::bytes(&mut out, 1, first);
            wire::bytes(&mut out, Self::SCHEMA, SCHEMA_URL.as_bytes());
            out
        };
        Self { resource: message(&attributes), scope: message(&name) }
    }

    /// What stands before this many bytes of spans, or of lines, in a request to export them.
    pub fn head(&self, items: usize) -> Vec<u8> {
        let within = self.scope.len() + items;
        let mut out = Vec::with_capacity(self.resource.len() + self.scope.len() + 16);
        wire::head(&mut out, Self::RESOURCE, self.resource.len() + wire::bytes_len(within));
        out.extend_from_slice(&self.resource);
        wire::head(&mut out, Self::SCOPE, within);
        out.extend_from_slice(&self.scope);
        out
    }
}

/// In a container its id.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_unreadable| "localhost".into(), |name| name.trim().to_owned())
}

/// All that is known when it begins.
pub(super) fn begin_span(context: Context, parent_id: u64, kind: Kind, name: impl Display, started_ns: u64) -> Vec<u8> {
    let kind = match kind {
        Kind::Internal => 1,
        Kind::Server => 2,
        Kind::Client => 3,
    };
    let mut out = Vec::with_capacity(SPAN_BYTES);
    wire::bytes(&mut out, 1, &context.trace_id.to_be_bytes());
    wire::bytes(&mut out, 2, &context.span_id.to_be_bytes());
    if parent_id != 0 {
        wire::bytes(&mut out, 4, &parent_id.to_be_bytes());
    }
    wire::shown(&mut out, 5, name);
    wire::number(&mut out, 6, kind);
    wire::fixed64(&mut out, 7, started_ns);
    wire::fixed32(&mut out, 16, context.sampled.into());
    out
}

pub(super) fn span_attribute(span: &mut Vec<u8>, key: &str, value: Value<'_>) {
    attribute(span, SPAN_ATTRIBUTES, key, value);
}

pub(super) fn span_link(span: &mut Vec<u8>, to: Context) {
    let mut link = Vec::with_capacity(40);
    wire::bytes(&mut link, 1, &to.trace_id.to_be_bytes());
    wire::bytes(&mut link, 2, &to.span_id.to_be_bytes());
    wire::fixed32(&mut link, 6, to.sampled.into());
    wire::bytes(span, 13, &link);
}

pub(super) fn span_failed(span: &mut Vec<u8>) {
    const ERROR: u64 = 2;
    wire::head(span, 15, wire::number_len(ERROR));
    wire::number(span, 3, ERROR);
}

pub(super) fn end_span(span: &mut Vec<u8>, ended_ns: u64) {
    wire::fixed64(span, 8, ended_ns);
}

pub(super) fn begin_line(at_ns: u64, level: Level, target: &'static str) -> Vec<u8> {
    let (severity, text) = match level {
        Level::ERROR => (17, "ERROR"),
        Level::WARN => (13, "WARN"),
        Level::INFO => (9, "INFO"),
        Level::DEBUG => (5, "DEBUG"),
        Level::TRACE => (1, "TRACE"),
    };
    let mut out = Vec::with_capacity(SPAN_BYTES);
    wire::fixed64(&mut out, 1, at_ns);
    wire::fixed64(&mut out, 11, at_ns);
    wire::number(&mut out, 2, severity);
    wire::bytes(&mut out, 3, text.as_bytes());
    line_attribute(&mut out, "code.namespace", target.into());
    out
}

pub(super) fn line_attribute(line: &mut Vec<u8>, key: &str, value: Value<'_>) {
    attribute(line, LINE_ATTRIBUTES, key, value);
}

pub(super) fn line_text(line: &mut Vec<u8>, text: &str) {
    let value = Value::Text(text);
    wire::head(line, 5, any_len(value));
    any(line, value);
}

pub(super) fn line_trace(line: &mut Vec<u8>, trace_id: u128) {
    wire::bytes(line, 9, &trace_id.to_be_bytes());
}

pub(super) fn line_span(line: &mut Vec<u8>, span_id: u64) {
    wire::bytes(line, 10, &span_id.to_be_bytes());
}

fn attribute(out: &mut Vec<u8>, field: u32, key: &str, value: Value<'_>) {
    let length = any_len(value);
    wire::head(out, field, wire::bytes_len(key.len()) + wire::bytes_len(length));
    wire::bytes(out, 1, key.as_bytes());
    wire::head(out, 2, length);
    any(out, value);
}

fn any(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Text(text) => wire::bytes(out, 1, text.as_bytes()),
        Value::Bool(value) => wire::number(out, 2, value.into()),
        Value::Int(number) => wire::number(out, 3, number as u64),
        Value::Float(number) => wire::fixed64(out, 4, number.to_bits()),
    }
}

fn any_len(value: Value<'_>) -> usize {
    match value {
        Value::Text(text) => wire::bytes_len(text.len()),
        Value::Bool(_) => 2,
        Value::Int(number) => wire::number_len(number as u64),
        Value::Float(_) => 9,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
        common::v1::{AnyValue, KeyValue, any_value},
        logs::v1::{LogRecord, SeverityNumber},
        trace::v1::{Span, Status, span, status::StatusCode},
    };
    use prost::Message;

    use super::*;

    fn key_value(key: &str, value: any_value::Value) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    /// A request with these, as whoever receives it gets it.
    fn enveloped(items: &[&[u8]]) -> Vec<u8> {
        let mut of_scope = Vec::new();
        items.iter().for_each(|item| wire::bytes(&mut of_scope, ITEM, item));
        let envelope = Envelope::of(&Service { name: "api", listen: "here".into() });
        [envelope.head(of_scope.len()), of_scope].concat()
    }

    #[test]
    fn spans_are_read_as_they_were_meant() {
        use any_value::Value::{BoolValue, DoubleValue, IntValue, StringValue};
        let here = Context { trace_id: 7 << 100, span_id: 5, sampled: true };
        let there = Context { trace_id: 8, span_id: u64::MAX, sampled: false };
        let long = "y".repeat(300);
        let mut whole = begin_span(here, 9, Kind::Client, format_args!("GET {long}"), 1_000);
        for (key, value) in [
            ("text", Value::Text(&long)),
            ("int", Value::Int(-3)),
            ("float", Value::Float(0.25)),
            ("bool", Value::Bool(true)),
        ] {
            span_attribute(&mut whole, key, value);
        }
        span_link(&mut whole, there);
        span_failed(&mut whole);
        end_span(&mut whole, 2_000);
        let mut least = begin_span(there, 0, Kind::Internal, "", 0);
        end_span(&mut least, 0);

        let request = ExportTraceServiceRequest::decode(&*enveloped(&[&whole, &least])).unwrap();
        let of_resource = &request.resource_spans[0];
        let resource = of_resource.resource.as_ref().unwrap();
        assert_eq!(resource.attributes.len(), 4);
        assert_eq!(resource.attributes[0], key_value(resource::SERVICE_NAME, StringValue("api".into())));
        let of_scope = &of_resource.scope_spans[0];
        assert_eq!((&*of_resource.schema_url, &*of_scope.schema_url), (SCHEMA_URL, SCHEMA_URL));
        assert_eq!(of_scope.scope.as_ref().unwrap().name, "testbed");
        let expected = Span {
            trace_id: here.trace_id.to_be_bytes().into(),
            span_id: here.span_id.to_be_bytes().into(),
            parent_span_id: 9_u64.to_be_bytes().into(),
            flags: 1,
            name: format!("GET {long}"),
            kind: span::SpanKind::Client.into(),
            start_time_unix_nano: 1_000,
            end_time_unix_nano: 2_000,
            attributes: vec![
                key_value("text", StringValue(long.clone())),
                key_value("int", IntValue(-3)),
                key_value("float", DoubleValue(0.25)),
                key_value("bool", BoolValue(true)),
            ],
            links: vec![span::Link {
                trace_id: there.trace_id.to_be_bytes().into(),
                span_id: there.span_id.to_be_bytes().into(),
                ..span::Link::default()
            }],
            status: Some(Status { message: String::new(), code: StatusCode::Error.into() }),
            ..Span::default()
        };
        assert_eq!(of_scope.spans[0], expected);
        let expected = Span {
            trace_id: there.trace_id.to_be_bytes().into(),
            span_id: there.span_id.to_be_bytes().into(),
            kind: span::SpanKind::Internal.into(),
            ..Span::default()
        };
        assert_eq!(of_scope.spans[1..], [expected]);
    }

    #[test]
    fn lines_are_read_as_they_were_meant() {
        use any_value::Value::StringValue;
        let mut line = begin_line(77, Level::WARN, "here");
        line_text(&mut line, "went wrong");
        line_attribute(&mut line, "k", "v".into());
        line_trace(&mut line, 3);
        line_span(&mut line, 4);
        let request = ExportLogsServiceRequest::decode(&*enveloped(&[&line])).unwrap();
        let expected = LogRecord {
            time_unix_nano: 77,
            observed_time_unix_nano: 77,
            severity_number: SeverityNumber::Warn.into(),
            severity_text: "WARN".into(),
            body: Some(AnyValue { value: Some(StringValue("went wrong".into())) }),
            attributes: vec![
                key_value("code.namespace", StringValue("here".into())),
                key_value("k", StringValue("v".into())),
            ],
            trace_id: 3_u128.to_be_bytes().into(),
            span_id: 4_u64.to_be_bytes().into(),
            ..LogRecord::default()
        };
        assert_eq!(request.resource_logs[0].scope_logs[0].log_records, [expected]);
    }
}
