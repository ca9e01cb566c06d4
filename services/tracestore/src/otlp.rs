//! Converts OTLP messages to spans, and truncates everything to a bound.

use std::{collections::BTreeMap, sync::Arc};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{self as wire, span::SpanKind, status::StatusCode},
};

use crate::{Event, Kind, Span, SpanId, TraceId};

const MAX_ATTRIBUTES: usize = 32;
const MAX_EVENTS: usize = 8;
/// Maximum bytes of a name, a key or a value.
const MAX_TEXT: usize = 256;

/// The spans of a message, and the number of spans without a valid id.
pub(crate) fn spans(request: ExportTraceServiceRequest) -> (Vec<(TraceId, Span)>, u64) {
    let mut spans = Vec::new();
    let mut invalid = 0;
    for resource in request.resource_spans {
        let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let named = |key: &str| {
            let found = attributes.iter().find(|attribute| attribute.key == key);
            found.map(|attribute| Arc::<str>::from(text(attribute.value.as_ref())))
        };
        let service = named("service.name").unwrap_or_else(|| "unknown".into());
        let instance = named("service.instance.id");
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            match (TraceId::from_bytes(&span.trace_id), SpanId::from_bytes(&span.span_id)) {
                (Some(trace), Some(id)) => spans.push((trace, convert(id, span, &service, instance.as_ref()))),
                _ => invalid += 1,
            }
        }
    }
    (spans, invalid)
}

fn convert(id: SpanId, span: wire::Span, service: &Arc<str>, instance: Option<&Arc<str>>) -> Span {
    let status = span.status.clone().unwrap_or_default();
    let kind = match span.kind() {
        SpanKind::Server => Kind::Server,
        SpanKind::Client => Kind::Client,
        SpanKind::Producer => Kind::Producer,
        SpanKind::Consumer => Kind::Consumer,
        SpanKind::Internal | SpanKind::Unspecified => Kind::Internal,
    };
    let events = span.events.into_iter().take(MAX_EVENTS).map(|event| Event {
        name: cut(event.name),
        at_ns: event.time_unix_nano,
        attributes: texts(event.attributes),
    });
    Span {
        id,
        parent: SpanId::from_bytes(&span.parent_span_id),
        name: cut(span.name),
        kind,
        service: Arc::clone(service),
        instance: instance.cloned(),
        start_ns: span.start_time_unix_nano,
        duration_ns: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
        failed: status.code() == StatusCode::Error,
        message: cut(status.message),
        attributes: texts(span.attributes),
        events: events.collect(),
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let kept = attributes.into_iter().take(MAX_ATTRIBUTES);
    kept.map(|attribute| (cut(attribute.key), text(attribute.value.as_ref()))).collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        None => String::new(),
        Some(Value::StringValue(text)) => cut(text.clone()),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        Some(Value::ArrayValue(array)) => {
            // Lists of the semantic conventions are flat; nested values are left out.
            let items = array.values.iter().take(MAX_ATTRIBUTES).filter(|item| !nested(item));
            cut(items.map(|item| text(Some(item))).collect::<Vec<_>>().join(","))
        }
        Some(Value::BytesValue(bytes)) => format!("{} bytes", bytes.len()),
        Some(Value::KvlistValue(map)) => format!("{} entries", map.values.len()),
        // Of profiles: an index into a table that traces do not have.
        Some(Value::StringValueStrindex(_)) => String::new(),
    }
}

fn nested(value: &AnyValue) -> bool {
    matches!(value.value, Some(Value::ArrayValue(_) | Value::KvlistValue(_)))
}

/// At most `MAX_TEXT` bytes, without control characters, because it is printed to terminals.
fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT - '…'.len_utf8()));
        text.push('…');
    }
    if text.contains(char::is_control) { text.replace(char::is_control, " ") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(value: Value) -> Option<AnyValue> {
        Some(AnyValue { value: Some(value) })
    }

    #[test]
    fn values_become_text() {
        let list = opentelemetry_proto::tonic::common::v1::ArrayValue {
            values: vec![
                AnyValue { value: Some(Value::StringValue("a".into())) },
                AnyValue { value: Some(Value::IntValue(2)) },
            ],
        };
        for (wire, expected) in [
            (value(Value::StringValue("x\ny\x1b[31m".into())), "x y [31m"),
            (value(Value::BoolValue(true)), "true"),
            (value(Value::IntValue(-3)), "-3"),
            (value(Value::DoubleValue(0.5)), "0.5"),
            (value(Value::ArrayValue(list)), "a,2"),
            (value(Value::BytesValue(vec![1, 2])), "2 bytes"),
            (Some(AnyValue { value: None }), ""),
            (None, ""),
        ] {
            assert_eq!(text(wire.as_ref()), expected);
        }
        let long = text(value(Value::StringValue("é".repeat(300))).as_ref());
        assert!(long.len() <= MAX_TEXT && long.ends_with('…'), "{long}");
    }

    /// A deeply nested array: prost refuses deep messages, and accepted ones end here immediately.
    #[test]
    fn nested_values_are_left_out() {
        let mut nest = AnyValue { value: Some(Value::IntValue(1)) };
        for _ in 0..90 {
            let list = opentelemetry_proto::tonic::common::v1::ArrayValue { values: vec![nest] };
            nest = AnyValue { value: Some(Value::ArrayValue(list)) };
        }
        assert_eq!(text(Some(&nest)), "");
    }

    #[test]
    fn a_span_that_ends_before_it_starts_took_no_time() {
        let span = wire::Span { start_time_unix_nano: 5, end_time_unix_nano: 3, ..wire::Span::default() };
        let span = convert(SpanId::from_bytes(&[1; 8]).unwrap(), span, &"s".into(), None);
        assert_eq!((span.duration_ns, span.parent, span.kind), (0, None, Kind::Internal));
    }
}
