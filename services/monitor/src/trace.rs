//! Ids of a failover's trace.

/// Id of the root span. It follows from the trace id, so that every process that knows the trace can add spans below the root.
pub fn root_span_id(trace_id: u128) -> u64 {
    (trace_id as u64).max(1)
}
