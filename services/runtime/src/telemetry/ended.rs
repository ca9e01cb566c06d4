//! Spans and lines that are complete, on their way from OpenTelemetry's SDK to the queues. Not its batch processors: they hold a number of
//! items of any size, and what they drop they only log.

use std::{mem::size_of, sync::Arc, time::Duration};

use opentelemetry::{
    Context, InstrumentationScope, KeyValue, SpanId, TraceId, Value,
    logs::{AnyValue, LogRecord, Logger, LoggerProvider},
    trace::{Link, Status},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    logs::{LogProcessor, SdkLogRecord, SdkLoggerProvider},
    trace::{Span, SpanData, SpanProcessor},
};

use super::{
    lines::{SPAN_ID, TRACE_ID},
    outbox::{Item, Outbox},
};

/// Of a line's text or value: an error with all its causes is shorter.
const LINE_TEXT_BYTES: usize = 4_096;

#[derive(Debug)]
pub(super) struct Spans(pub Arc<Outbox<SpanData>>);

#[derive(Debug)]
pub(super) struct Lines {
    outbox: Arc<Outbox<SdkLogRecord>>,
    blank: SdkLogRecord,
}

/// As much of a text, in whole characters.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

impl SpanProcessor for Spans {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.put(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// The queue ends with its sender.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Lines {
    pub fn new(outbox: Arc<Outbox<SdkLogRecord>>) -> Self {
        // The SDK has no other way to a record.
        let blank = SdkLoggerProvider::builder().build().logger("").create_log_record();
        Self { outbox, blank }
    }

    /// The line in its place in a trace, and without what does not belong into it: the bridge from `tracing` takes all fields for
    /// attributes, and a place in the source for the name of an event.
    fn tidy(&self, line: &SdkLogRecord) -> SdkLogRecord {
        let mut tidy = self.blank.clone();
        let at = line.observed_timestamp().unwrap_or_else(std::time::SystemTime::now);
        tidy.set_timestamp(at);
        tidy.set_observed_timestamp(at);
        if let (Some(number), Some(text)) = (line.severity_number(), line.severity_text()) {
            tidy.set_severity_number(number);
            tidy.set_severity_text(text);
        }
        if let Some(target) = line.target() {
            tidy.set_target(target.clone());
        }
        if let Some(body) = line.body() {
            tidy.set_body(shortened(body));
        }
        // 0 is no id.
        let (mut trace_id, mut span_id) = (0, 0);
        for (key, value) in line.attributes_iter() {
            match (key.as_str(), value) {
                (TRACE_ID, AnyValue::String(id)) => trace_id = u128::from_str_radix(id.as_str(), 16).unwrap_or(0),
                (SPAN_ID, AnyValue::String(id)) => span_id = u64::from_str_radix(id.as_str(), 16).unwrap_or(0),
                _ => tidy.add_attribute(key.clone(), shortened(value)),
            }
        }
        if trace_id != 0 {
            tidy.set_trace_context(TraceId::from(trace_id), SpanId::from(span_id), None);
        }
        tidy
    }
}

fn shortened(value: &AnyValue) -> AnyValue {
    match value {
        AnyValue::String(text) if text.as_str().len() > LINE_TEXT_BYTES => {
            cut(text.as_str(), LINE_TEXT_BYTES).to_owned().into()
        }
        short => short.clone(),
    }
}

impl LogProcessor for Lines {
    fn emit(&self, line: &mut SdkLogRecord, _: &InstrumentationScope) {
        self.outbox.put(self.tidy(line));
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// The queue ends with its sender.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// In memory an attribute takes more than the framing of its fields in a message, and so does what stands around the attributes.
impl Item for SpanData {
    fn bytes(&self) -> usize {
        let of = |attribute: &KeyValue| {
            let text = if let Value::String(text) = &attribute.value { text.as_str().len() } else { 0 };
            attribute.key.as_str().len() + text
        };
        let status = if let Status::Error { description } = &self.status { description.len() } else { 0 };
        size_of::<Self>()
            + self.name.len()
            + status
            + self.attributes.capacity() * size_of::<KeyValue>()
            + self.attributes.iter().map(of).sum::<usize>()
            + self.links.len() * size_of::<Link>()
    }
}

impl Item for SdkLogRecord {
    fn bytes(&self) -> usize {
        let text = |value: &AnyValue| if let AnyValue::String(text) = value { text.as_str().len() } else { 0 };
        let attributes = self
            .attributes_iter()
            .map(|(key, value)| size_of::<(opentelemetry::Key, AnyValue)>() + key.as_str().len() + text(value));
        let target = self.target().map_or(0, |target| target.len());
        size_of::<Self>() + target + self.body().map_or(0, text) + attributes.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::trace::{SpanContext, SpanKind, TraceFlags, TraceState};
    use opentelemetry_proto::tonic;
    use opentelemetry_sdk::logs::LogBatch;
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn context(sampled: bool) -> SpanContext {
        let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        SpanContext::new(TraceId::from(u128::MAX), SpanId::from(u64::MAX), flags, false, TraceState::NONE)
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            ".{0,300}".prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_span_is_no_larger_than_it_is_taken_for(
            name in ".{0,300}",
            attributes in prop::collection::vec((".{0,40}", value()), 0..40),
            links in 0..8_usize,
            failed: bool,
        ) {
            let mut span = SpanData {
                span_context: context(true),
                parent_span_id: SpanId::from(u64::MAX),
                parent_span_is_remote: true,
                span_kind: SpanKind::Server,
                name: name.into(),
                start_time: SystemTime::now(),
                end_time: SystemTime::now(),
                attributes: attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect(),
                dropped_attributes_count: u32::MAX,
                events: SpanEvents::default(),
                links: SpanLinks::default(),
                status: if failed { Status::error("") } else { Status::Unset },
                instrumentation_scope: super::super::resource::scope(),
            };
            span.links.links = vec![Link::new(context(false), Vec::new(), 0); links];
            let bytes = span.bytes();
            let message = tonic::trace::v1::Span::from(span).encoded_len();
            // With what stands before it among its like.
            prop_assert!(message + 6 <= bytes, "{message} > {bytes}");
        }

        #[test]
        fn a_line_is_no_larger_than_it_is_taken_for(
            text in ".{0,300}",
            attributes in prop::collection::vec((".{0,40}", ".{0,300}"), 0..40),
        ) {
            let lines = Lines::new(Arc::new(Outbox::new(1, 1 << 20, super::super::outbox::tests::counts())));
            let mut line = lines.blank.clone();
            line.set_body(text.into());
            line.set_target("here");
            line.set_observed_timestamp(SystemTime::now());
            attributes.into_iter().for_each(|(key, value)| line.add_attribute(key, value));
            let line = lines.tidy(&line);
            let bytes = line.bytes();
            let message = tonic::logs::v1::LogRecord::from(&line).encoded_len();
            prop_assert!(message + 6 <= bytes, "{message} > {bytes}");
        }
    }

    #[test]
    fn a_line_gets_its_place_and_is_cut() {
        let lines = Lines::new(Arc::new(Outbox::new(1, 1 << 20, super::super::outbox::tests::counts())));
        let mut line = lines.blank.clone();
        line.set_event_name("event somewhere:7");
        line.set_observed_timestamp(SystemTime::now());
        line.set_body("é".repeat(LINE_TEXT_BYTES).into());
        let span_id = format!("{:016x}", 5);
        line.add_attributes([(TRACE_ID, format!("{:032x}", 4)), (SPAN_ID, span_id), ("k", "v".to_owned())]);
        let tidy = lines.tidy(&line);
        let place = tidy.trace_context().unwrap();
        assert_eq!((place.trace_id, place.span_id), (TraceId::from(4), SpanId::from(5)));
        let expected = [(opentelemetry::Key::from("k"), AnyValue::from("v"))];
        assert!(tidy.attributes_iter().eq(&expected), "{tidy:?}");
        assert_eq!((tidy.event_name(), tidy.timestamp()), (None, line.observed_timestamp()));
        assert_eq!(tidy.body(), Some(&AnyValue::from("é".repeat(LINE_TEXT_BYTES / 2))));
        // A batch of one, as it is exported.
        let scope = super::super::resource::scope();
        assert_eq!(LogBatch::new(&[(&tidy, &scope)]).iter().count(), 1);
    }
}
