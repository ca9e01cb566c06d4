//! Measures and traces a takeover: from the first table with missing fences until the last fence is set.

use std::time::{Duration, Instant};

use contract::{
    ShardId,
    spans::{attribute, name, system},
};
use heartbeat::assign::Table;
use runtime::telemetry::{Kind, Span, Telemetry};

#[derive(Debug, Default)]
pub struct Takeover {
    since: Option<Instant>,
    span: Span,
}

impl Takeover {
    /// A later table needs this many fences. Missing fences of an earlier table are among them or obsolete. Continues the trace in the table.
    pub fn needs(&mut self, fences: usize, table: &Table, telemetry: &Telemetry, now: Instant) {
        self.since = if fences == 0 { None } else { self.since.or(Some(now)) };
        let traceparent = table.traceparent.as_deref().filter(|_| fences > 0);
        self.span = traceparent.map_or(Span::NONE, |traceparent| {
            let span = telemetry.follow(traceparent, Kind::Internal, name::TAKEOVER);
            span.set(attribute::EPOCH, table.epoch);
            span.set(attribute::PARTITIONS, fences);
            span
        });
    }

    /// This many fences are still missing. Returns the takeover's duration when none is.
    pub fn missing(&mut self, fences: usize, now: Instant) -> Option<Duration> {
        if fences > 0 {
            return None;
        }
        self.span = Span::NONE;
        self.since.take().map(|since| now - since)
    }

    /// The span of an attempt to set a fence.
    pub fn fence_span(&self, shard: ShardId) -> Span {
        const SUMMARY: &str = "UPDATE ownership";
        let span = self.span.child(Kind::Client, SUMMARY);
        span.set(attribute::DB_SYSTEM_NAME, system::MYSQL);
        span.set_with(attribute::DB_NAMESPACE, || shard.schema());
        span.set(attribute::DB_COLLECTION_NAME, "ownership");
        span.set(attribute::DB_OPERATION_NAME, "UPDATE");
        span.set(attribute::DB_QUERY_SUMMARY, SUMMARY);
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takeover_lasts_from_the_table_to_the_last_fence_also_when_the_store_was_away() {
        let (mut takeover, start) = (Takeover::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let needs = |takeover: &mut Takeover, fences, now| {
            takeover.needs(fences, &Table::default(), &Telemetry::default(), now);
        };
        needs(&mut takeover, 0, at(0));
        assert_eq!(takeover.missing(0, at(1)), None, "a table without new partitions is no takeover");
        needs(&mut takeover, 3, at(10));
        assert_eq!(takeover.missing(1, at(20)), None);
        assert_eq!(takeover.missing(1, at(520)), None);
        assert_eq!(takeover.missing(0, at(1_020)), Some(Duration::from_millis(1_010)));
        assert_eq!(takeover.missing(0, at(1_030)), None, "once");
        // A table in between continues the takeover, or cancels it.
        needs(&mut takeover, 2, at(2_000));
        needs(&mut takeover, 1, at(2_100));
        assert_eq!(takeover.missing(0, at(2_200)), Some(Duration::from_millis(200)));
        needs(&mut takeover, 1, at(3_000));
        needs(&mut takeover, 0, at(3_100));
        assert_eq!(takeover.missing(0, at(3_200)), None);
    }
}
