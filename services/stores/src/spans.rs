//! Spans of work on MySQL.

use contract::{
    ShardId,
    spans::{attribute, name, system},
};
use runtime::telemetry::{Kind, Span};

use crate::{config::Address, pool::StoreError};

/// Of the wait for a connection of the pool to this address.
pub(crate) fn pool_wait(above: &Span, shard: ShardId, address: &str) -> Span {
    let span = above.child(Kind::Internal, name::POOL_WAIT);
    if span.is_recorded() {
        span.set(attribute::DB_CLIENT_CONNECTION_POOL_NAME, address);
        span.set(attribute::DB_NAMESPACE, shard.schema().as_str());
    }
    span
}

/// Of a statement, or of a transaction of some; `summary`: its verb and its table. The text has users' ids in it and is not told.
pub(crate) fn query(above: &Span, summary: &'static str, shard: ShardId, address: &str) -> Span {
    let span = above.child(Kind::Client, summary);
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

/// The result, told of to the span.
pub(crate) fn told<T>(span: &Span, result: Result<T, StoreError>) -> Result<T, StoreError> {
    result.inspect_err(|error| span.fail(error.kind()))
}
