//! W3C trace context (Level 2), which processes pass on in the header `traceparent`.

use std::fmt;

use opentelemetry::{SpanId, TraceId};

pub const TRACEPARENT: &str = "traceparent";

/// The ids of a span and its trace. Neither is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub trace_id: u128,
    pub span_id: u64,
    /// Whether the span is recorded; its children follow this decision.
    pub sampled: bool,
}

const LENGTH: usize = 55;

impl Context {
    /// The root of a new trace.
    pub fn root(sampled: bool) -> Self {
        Self { trace_id: rand::random::<u128>().max(1), span_id: new_span_id(), sampled }
    }

    /// Another span of this trace.
    #[must_use]
    pub fn sibling(self) -> Self {
        Self { span_id: new_span_id(), ..self }
    }

    /// `None`: malformed, to be ignored. Of a later version, only the fields of this version are read.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let fields = header.get(..LENGTH)?;
        if [2, 35, 52].iter().any(|at| fields[*at] != b'-') {
            return None;
        }
        let version = hex(&fields[..2])?;
        let ended = header.len() == LENGTH || (version > 0 && header[LENGTH] == b'-');
        let context = Self {
            trace_id: hex(&fields[3..35])?,
            span_id: hex(&fields[36..52])? as u64,
            sampled: hex(&fields[53..])? & 1 == 1,
        };
        (ended && version != 0xff && context.trace_id != 0 && context.span_id != 0).then_some(context)
    }

    /// As in logs and URLs: 32 hexadecimal digits.
    pub fn trace_id_hex(self) -> String {
        TraceId::from(self.trace_id).to_string()
    }

    /// 16 hexadecimal digits.
    pub fn span_id_hex(self) -> String {
        SpanId::from(self.span_id).to_string()
    }
}

/// The value of the header `traceparent`.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace_id, span_id) = (TraceId::from(self.trace_id), SpanId::from(self.span_id));
        write!(f, "00-{trace_id}-{span_id}-{:02x}", u8::from(self.sampled))
    }
}

pub(super) fn new_span_id() -> u64 {
    rand::random::<u64>().max(1)
}

/// Only lower-case digits, as the specification requires. `TraceId::from_hex` also accepts upper case and a sign.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_parsed_as_it_was_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = Context::parse(text.as_bytes()).unwrap();
        assert_eq!((context.span_id, context.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(context.to_string(), text);
        for sampled in [true, false] {
            let root = Context::root(sampled);
            assert_eq!(Context::parse(root.to_string().as_bytes()), Some(root));
            assert_eq!((root.sibling().trace_id, root.sibling() == root), (root.trace_id, false));
        }
    }

    #[test]
    fn malformed_headers_are_ignored() {
        let parse = |text: &str| Context::parse(text.as_bytes());
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let good = format!("00-{trace}-{span}-01");
        for cut in 0..good.len() {
            assert_eq!(parse(&good[..cut]), None, "{cut}");
        }
        for bad in [
            format!("{good}-"),
            format!("{good}-00"),
            format!("ff-{trace}-{span}-01"),
            format!("01-{trace}-{span}-01x"),
            format!("00-{trace}-{span}-0g"),
            format!("00_{trace}-{span}-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
        assert_eq!(parse(&format!("01-{trace}-{span}-03-what comes later")).map(|context| context.sampled), Some(true));
        assert_eq!(parse(&format!("00-{trace}-{span}-02")).map(|context| context.sampled), Some(false));
    }
}
