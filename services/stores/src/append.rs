//! Events that are written without Kafka. Each transaction is one packet.

use std::fmt::Write;

use contract::{Event, ShardId, shard_of, spans::attribute};
use runtime::telemetry::Span;

use crate::{
    error::StoreError,
    mysql::{Store, detached},
    numbered::{Arrival, ImportEvent, insert_rows, take_numbers},
    spans,
    sql::push_hex,
    transaction::{begin, commit, run_packet},
    turn::Turn,
};

impl Store {
    /// Appends events to the log without Kafka, and creates unknown users. One transaction per shard, in the order of shards. The events get
    /// arrival numbers in their order. An event that is in the log already changes nothing, so a failed batch can be sent again. Each
    /// transaction and each wait before it is a child span of `span`.
    ///
    /// # Errors
    /// As `history`. The events of earlier shards are written.
    pub async fn append(&self, events: &[Event], now_ms: i64, span: &Span) -> Result<(), StoreError> {
        for shard in ShardId::all() {
            let of_shard = events.iter().filter(|event| shard_of(event.user_id.as_str()) == shard);
            let mut rows: Vec<(usize, ImportEvent<'_>)> = of_shard.map(ImportEvent::of).enumerate().collect();
            if rows.is_empty() {
                continue;
            }
            rows.sort_by(|(_, a), (_, b)| a.row_key().cmp(&b.row_key()));
            let sql = append_sql(shard, &rows, now_ms);
            let mut pooled = self.traced_checkout(shard, Turn::default(), span).await?;
            let query = spans::query(span, "INSERT behaviour", shard, &self.pool(shard).address);
            query.set(attribute::ITEMS, rows.len());
            detached(async move {
                let appended = async {
                    let timeout = pooled.command_timeout();
                    let result = run_packet(pooled.connection().await?, sql, timeout).await;
                    pooled.write(result)
                };
                spans::record_error(&query, appended.await).map(drop)
            })
            .await?;
        }
        Ok(())
    }
}

/// `rows`: in the order of their keys, with their places among the numbers.
fn append_sql(shard: ShardId, rows: &[(usize, ImportEvent<'_>)], now_ms: i64) -> String {
    let schema = shard.schema();
    let mut sql = String::with_capacity(1_000 + 500 * rows.len());
    begin(&mut sql);
    take_numbers(&mut sql, &schema, rows.len());
    for of_user in rows.chunk_by(|(_, a), (_, b)| a.user_id == b.user_id) {
        insert_rows(&mut sql, &schema, of_user.iter().map(|&(n, row)| (row, Arrival::Taken(n))));
        let mut id = String::new();
        push_hex(&mut id, of_user[0].1.user_id.as_str());
        // Features that lack events are deleted: the next event from Kafka makes them again, from the whole log.
        let _ = write!(
            sql,
            "SET @added = ROW_COUNT(); \
             DELETE FROM {schema}.features WHERE user_id = x'{id}' AND @added > 0; \
             INSERT INTO {schema}.users (user_id, created_at_ms, events) VALUES (x'{id}',{now_ms},@added) \
             ON DUPLICATE KEY UPDATE events = events + VALUES(events); "
        );
    }
    commit(&mut sql, "");
    sql
}
