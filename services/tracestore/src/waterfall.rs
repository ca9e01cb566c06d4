//! Orders the spans of a trace as a tree, each with its offset on a common time axis.

use std::collections::HashMap;

use crate::{Span, SpanId, Trace};

/// A line of the waterfall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    pub span: &'a Span,
    /// 0: no parent in this trace.
    pub depth: usize,
    /// No sibling follows.
    pub last: bool,
    /// Nanoseconds since the trace's first span began.
    pub offset_ns: u64,
}

/// Parents before their children, siblings by start. A span whose parent is missing begins its own tree.
pub fn rows(trace: &Trace) -> Vec<Row<'_>> {
    let origin = trace.spans.iter().map(|span| span.start_ns).min().unwrap_or_default();
    let mut by_start: Vec<&Span> = trace.spans.iter().collect();
    by_start.sort_by_key(|span| (span.start_ns, std::cmp::Reverse(span.duration_ns), span.id));
    let present: std::collections::HashSet<SpanId> = by_start.iter().map(|span| span.id).collect();
    let mut roots = Vec::new();
    let mut children: HashMap<SpanId, Vec<&Span>> = HashMap::new();
    for &span in &by_start {
        match span.parent {
            Some(parent) if present.contains(&parent) => children.entry(parent).or_default().push(span),
            _ => roots.push(span),
        }
    }
    let mut rows = Vec::with_capacity(by_start.len());
    // A stack instead of recursion: the sender decides how deep spans are nested. Each list of children is taken once, so a cycle (which
    // no root reaches) cannot loop for ever.
    let mut stack: Vec<(&Span, usize, bool)> = Vec::new();
    push(&mut stack, roots, 0);
    while let Some((span, depth, last)) = stack.pop() {
        rows.push(Row { span, depth, last, offset_ns: span.start_ns.saturating_sub(origin) });
        if let Some(spans) = children.remove(&span.id) {
            push(&mut stack, spans, depth + 1);
        }
    }
    rows
}

/// The first sibling on top.
fn push<'a>(stack: &mut Vec<(&'a Span, usize, bool)>, siblings: Vec<&'a Span>, depth: usize) {
    let count = siblings.len();
    stack.extend(siblings.into_iter().enumerate().map(|(n, span)| (span, depth, n + 1 == count)).rev());
}

/// From the first span's start to the last span's end.
pub fn extent_ns(trace: &Trace) -> u64 {
    let start = trace.spans.iter().map(|span| span.start_ns).min().unwrap_or_default();
    trace.spans.iter().map(Span::end_ns).max().unwrap_or_default().saturating_sub(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, TraceId};

    fn id(n: u64) -> SpanId {
        SpanId::from_bytes(&n.to_be_bytes()).unwrap()
    }

    /// `(id, parent, start, duration)`, parent 0 for none.
    fn trace(spans: &[(u64, u64, u64, u64)]) -> Trace {
        let span = |&(n, parent, start_ns, duration_ns): &(u64, u64, u64, u64)| Span {
            id: id(n),
            parent: SpanId::from_bytes(&parent.to_be_bytes()),
            name: n.to_string(),
            kind: Kind::Internal,
            service: "api".into(),
            instance: None,
            start_ns,
            duration_ns,
            failed: false,
            message: String::new(),
            attributes: std::collections::BTreeMap::default(),
            events: Vec::new(),
        };
        let id = TraceId::from_bytes(&[7; 16]).unwrap();
        Trace { id, reasons: Vec::new(), spans: spans.iter().map(span).collect(), dropped_spans: 0 }
    }

    fn shape(trace: &Trace) -> Vec<(&str, usize, bool, u64)> {
        rows(trace).iter().map(|row| (row.span.name.as_str(), row.depth, row.last, row.offset_ns)).collect()
    }

    #[test]
    fn children_follow_their_parents_by_start() {
        let trace = trace(&[(4, 2, 130, 10), (3, 1, 160, 20), (2, 1, 120, 30), (1, 0, 100, 100)]);
        assert_eq!(shape(&trace), [("1", 0, true, 0), ("2", 1, false, 20), ("4", 2, true, 30), ("3", 1, true, 60)]);
        assert_eq!(extent_ns(&trace), 100);
    }

    #[test]
    fn what_has_no_parent_here_is_a_tree_of_its_own_and_a_circle_ends() {
        let trace = trace(&[(1, 9, 100, 5), (2, 0, 50, 100), (3, 4, 60, 1), (4, 3, 60, 1)]);
        assert_eq!(shape(&trace), [("2", 0, false, 0), ("1", 0, true, 50)]);
        assert_eq!(extent_ns(&Trace { spans: Vec::new(), ..trace }), 0);
    }

    #[test]
    fn deep_and_wide_traces_are_walked_without_recursion() {
        let chain: Vec<_> = (1..=50_000).map(|n| (n, n - 1, n, 1)).collect();
        let trace = trace(&chain);
        assert_eq!(rows(&trace).last().map(|row| row.depth), Some(49_999));
    }
}
