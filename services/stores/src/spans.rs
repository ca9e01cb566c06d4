//! Spans of MySQL operations.

use contract::{
    ShardId,
    spans::{attribute, name, system},
};
use runtime::telemetry::{Kind, Span};

use crate::{config::Address, error::StoreError};

/// A span for the wait for a connection to this address.
pub(crate) fn pool_wait(parent: &Span, shard: ShardId, address: &str) -> Span {
    let span = parent.child(Kind::Internal, name::POOL_WAIT);
    if span.is_recorded() {
        span.set(attribute::DB_CLIENT_CONNECTION_POOL_NAME, address);
        span.set(attribute::DB_NAMESPACE, shard.schema().as_str());
    }
    span
}

/// A span for a statement or a transaction. `summary` is its verb and its table. The SQL text is not recorded, because it contains user ids.
pub(crate) fn query(parent: &Span, summary: &'static str, shard: ShardId, address: &str) -> Span {
    let span = parent.child(Kind::Client, summary);
    if span.is_recorded() {
        let (verb, table) = summary.split_once(' ').unwrap_or((summary, ""));
        span.set_all([
            (attribute::DB_SYSTEM_NAME, system::MYSQL.into()),
            (attribute::DB_NAMESPACE, shard.schema().as_str().into()),
            (attribute::DB_COLLECTION_NAME, table.into()),
            (attribute::DB_OPERATION_NAME, verb.into()),
            (attribute::DB_QUERY_SUMMARY, summary.into()),
        ]);
        match Address::parse(address) {
            Some(Address::Tcp { host, port }) => {
                span.set(attribute::SERVER_ADDRESS, host);
                span.set(attribute::SERVER_PORT, port);
            }
            Some(Address::Unix { path }) => span.set(attribute::SERVER_ADDRESS, path),
            None => {}
        }
    }
    span
}

/// Marks the span as failed if the result is an error.
pub(crate) fn record_error<T>(span: &Span, result: Result<T, StoreError>) -> Result<T, StoreError> {
    result.inspect_err(|error| span.fail(error.kind()))
}
