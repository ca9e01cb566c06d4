//! Processors that put finished spans and log records of OpenTelemetry's SDK into the export queues. The SDK's batch processors are not used:
//! they bound the number of items but not their size, and only log what they drop.

use std::{mem::size_of, sync::Arc, time::Duration};

use opentelemetry::{
    Context, InstrumentationScope, KeyValue, SpanId, TraceId, Value,
    logs::{AnyValue, LogRecord, Logger, LoggerProvider},
    trace::{Event, Link, Status},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    logs::{LogProcessor, SdkLogRecord, SdkLoggerProvider},
    trace::{Span, SpanData, SpanProcessor},
};

use super::{
    log_bridge::{SPAN_ID, TRACE_ID},
    queue::{ByteSize, ExportQueue},
    text::truncated,
};

/// Longest message or value of a log line, in bytes. An error with all its sources is shorter.
const LOG_TEXT_BYTES: usize = 4_096;

#[derive(Debug)]
pub(super) struct SpanQueueProcessor(pub Arc<ExportQueue<SpanData>>);

#[derive(Debug)]
pub(super) struct LogQueueProcessor {
    queue: Arc<ExportQueue<SdkLogRecord>>,
    blank: SdkLogRecord,
}

impl SpanProcessor for SpanQueueProcessor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// The export thread drains the queue.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl LogQueueProcessor {
    pub fn new(queue: Arc<ExportQueue<SdkLogRecord>>) -> Self {
        // The SDK offers no other way to create a record.
        let blank = SdkLoggerProvider::builder().build().logger("").create_log_record();
        Self { queue, blank }
    }

    /// Sets the record's trace context from its fields, and drops the event name: the bridge from `tracing` makes all fields attributes, and
    /// uses the source position as the event name.
    fn normalized(&self, line: &SdkLogRecord) -> SdkLogRecord {
        let mut record = self.blank.clone();
        let at = line.observed_timestamp().unwrap_or_else(std::time::SystemTime::now);
        record.set_timestamp(at);
        record.set_observed_timestamp(at);
        if let (Some(number), Some(text)) = (line.severity_number(), line.severity_text()) {
            record.set_severity_number(number);
            record.set_severity_text(text);
        }
        if let Some(target) = line.target() {
            record.set_target(target.clone());
        }
        if let Some(body) = line.body() {
            record.set_body(truncated_value(body));
        }
        let (mut trace_id, mut span_id) = (TraceId::INVALID, SpanId::INVALID);
        for (key, value) in line.attributes_iter() {
            match (key.as_str(), value) {
                (TRACE_ID, AnyValue::String(id)) => {
                    trace_id = TraceId::from_hex(id.as_str()).unwrap_or(TraceId::INVALID);
                }
                (SPAN_ID, AnyValue::String(id)) => {
                    span_id = SpanId::from_hex(id.as_str()).unwrap_or(SpanId::INVALID);
                }
                _ => record.add_attribute(key.clone(), truncated_value(value)),
            }
        }
        if trace_id != TraceId::INVALID {
            record.set_trace_context(trace_id, span_id, None);
        }
        record
    }
}

fn truncated_value(value: &AnyValue) -> AnyValue {
    match value {
        AnyValue::String(text) if text.as_str().len() > LOG_TEXT_BYTES => {
            truncated(text.as_str(), LOG_TEXT_BYTES).to_owned().into()
        }
        short => short.clone(),
    }
}

impl LogProcessor for LogQueueProcessor {
    fn emit(&self, line: &mut SdkLogRecord, _: &InstrumentationScope) {
        self.queue.push(self.normalized(line));
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// The export thread drains the queue.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Counts structures with their size in memory, which exceeds the framing of their fields in a message.
impl ByteSize for SpanData {
    fn bytes(&self) -> usize {
        let attribute_bytes = |attribute: &KeyValue| {
            let text = if let Value::String(text) = &attribute.value { text.as_str().len() } else { 0 };
            attribute.key.as_str().len() + text
        };
        let status = if let Status::Error { description } = &self.status { description.len() } else { 0 };
        size_of::<Self>()
            + self.name.len()
            + status
            + self.attributes.capacity() * size_of::<KeyValue>()
            + self.attributes.iter().map(attribute_bytes).sum::<usize>()
            + self.links.len() * size_of::<Link>()
            + self.events.iter().map(|event| size_of::<Event>() + event.name.len()).sum::<usize>()
    }
}

impl ByteSize for SdkLogRecord {
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
        fn a_span_is_no_larger_than_its_byte_size(
            name in ".{0,300}",
            attributes in prop::collection::vec((".{0,40}", value()), 0..40),
            links in 0..8_usize,
            events in prop::collection::vec(".{0,300}", 0..16),
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
            let event = |name: String| Event::new(name, SystemTime::now(), Vec::new(), 0);
            span.events.events = events.into_iter().map(event).collect();
            let bytes = span.bytes();
            let message = tonic::trace::v1::Span::from(span).encoded_len();
            // With tag and length before it.
            prop_assert!(message + 6 <= bytes, "{message} > {bytes}");
        }

        #[test]
        fn a_log_record_is_no_larger_than_its_byte_size(
            text in ".{0,300}",
            attributes in prop::collection::vec((".{0,40}", ".{0,300}"), 0..40),
        ) {
            let processor = LogQueueProcessor::new(Arc::new(ExportQueue::new(1, 1 << 20, super::super::queue::tests::metrics())));
            let mut line = processor.blank.clone();
            line.set_body(text.into());
            line.set_target("here");
            line.set_observed_timestamp(SystemTime::now());
            attributes.into_iter().for_each(|(key, value)| line.add_attribute(key, value));
            let line = processor.normalized(&line);
            let bytes = line.bytes();
            let message = tonic::logs::v1::LogRecord::from(&line).encoded_len();
            prop_assert!(message + 6 <= bytes, "{message} > {bytes}");
        }
    }

    #[test]
    fn a_log_record_gets_its_trace_context_and_is_truncated() {
        let processor =
            LogQueueProcessor::new(Arc::new(ExportQueue::new(1, 1 << 20, super::super::queue::tests::metrics())));
        let mut line = processor.blank.clone();
        line.set_event_name("event somewhere:7");
        line.set_observed_timestamp(SystemTime::now());
        line.set_body("é".repeat(LOG_TEXT_BYTES).into());
        let span_id = format!("{:016x}", 5);
        line.add_attributes([(TRACE_ID, format!("{:032x}", 4)), (SPAN_ID, span_id), ("k", "v".to_owned())]);
        let record = processor.normalized(&line);
        let place = record.trace_context().unwrap();
        assert_eq!((place.trace_id, place.span_id), (TraceId::from(4), SpanId::from(5)));
        let expected = [(opentelemetry::Key::from("k"), AnyValue::from("v"))];
        assert!(record.attributes_iter().eq(&expected), "{record:?}");
        assert_eq!((record.event_name(), record.timestamp()), (None, line.observed_timestamp()));
        assert_eq!(record.body(), Some(&AnyValue::from("é".repeat(LOG_TEXT_BYTES / 2))));
        // A batch of one, as it is exported.
        let scope = super::super::resource::scope();
        assert_eq!(LogBatch::new(&[(&record, &scope)]).iter().count(), 1);
    }
}
