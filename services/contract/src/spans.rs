//! Names of spans and their attributes, by the OpenTelemetry semantic conventions. HTTP and MySQL are stable there; Redis is taken as it
//! stands. What the conventions have no word for begins with `testbed.`. A test compares the words with those of the conventions' own crate.

/// The version of the conventions these words are of.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.42.0";

/// Of the process.
pub mod resource {
    pub const SERVICE_NAME: &str = "service.name";
    pub const SERVICE_NAMESPACE: &str = "service.namespace";
    pub const SERVICE_VERSION: &str = "service.version";
    pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";
    /// The value of `service.namespace`.
    pub const NAMESPACE: &str = "recommendation-testbed";
}

pub mod attribute {
    pub const ERROR_TYPE: &str = "error.type";
    pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
    pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
    pub const HTTP_ROUTE: &str = "http.route";
    pub const URL_FULL: &str = "url.full";
    pub const URL_PATH: &str = "url.path";
    pub const URL_QUERY: &str = "url.query";
    pub const URL_SCHEME: &str = "url.scheme";
    pub const SERVER_ADDRESS: &str = "server.address";
    pub const SERVER_PORT: &str = "server.port";

    pub const DB_SYSTEM_NAME: &str = "db.system.name";
    pub const DB_NAMESPACE: &str = "db.namespace";
    pub const DB_COLLECTION_NAME: &str = "db.collection.name";
    pub const DB_OPERATION_NAME: &str = "db.operation.name";
    pub const DB_OPERATION_BATCH_SIZE: &str = "db.operation.batch.size";
    pub const DB_QUERY_SUMMARY: &str = "db.query.summary";
    pub const DB_RESPONSE_RETURNED_ROWS: &str = "db.response.returned_rows";
    pub const DB_CLIENT_CONNECTION_POOL_NAME: &str = "db.client.connection.pool.name";

    /// `cache`, `store`, `popular`, `stale`: where an answer came from.
    pub const ANSWER_SOURCE: &str = "testbed.answer.source";
    /// What the guard said of the user: `present`, `absent`, `newcomer`, `unsure`.
    pub const GUARD_RESULT: &str = "testbed.guard.result";
    /// What Redis had: `hit`, `miss`, `expired`, `error`.
    pub const CACHE_RESULT: &str = "testbed.cache.result";
    /// True on the one span of a request that was not sampled, but failed or was slow: there are no spans below it.
    pub const RETROSPECTIVE: &str = "testbed.retrospective";
    /// True on the server span of a request that a histogram's bucket names as its example: a trace that somebody may follow, and thus to
    /// be kept.
    pub const EXEMPLAR: &str = "testbed.exemplar";
    /// Items ranked or written.
    pub const ITEMS: &str = "testbed.items";
    /// The worker that a span is about, or several of them.
    pub const NODE: &str = "testbed.node";
    pub const INCARNATION: &str = "testbed.incarnation";
    /// Of the table of assignments.
    pub const EPOCH: &str = "testbed.epoch";
    /// Partitions that change hands.
    pub const PARTITIONS: &str = "testbed.partitions";
    pub const VOTES: &str = "testbed.votes";
    /// How a suspicion ended: `confirmed`, or what refuted it.
    pub const OUTCOME: &str = "testbed.outcome";
}

/// Names of spans that are no request, command or query: those are named after what they do, such as `GET /recommendations`, `GET`,
/// `SELECT behaviour`.
pub mod name {
    /// In the line of those who wait to be admitted; not there if nobody had to wait.
    pub const ADMISSION_WAIT: &str = "admission wait";
    /// From the miss to the list: connection, query, ranking.
    pub const LOAD: &str = "load";
    /// Waits for a load that another request began; linked to that load if it is recorded.
    pub const LOAD_WAIT: &str = "load wait";
    /// For a connection of the pool.
    pub const POOL_WAIT: &str = "pool wait";
    pub const RANK: &str = "rank";
    /// Behind the answer; the command to Redis is below it.
    pub const CACHE_FILL: &str = "cache fill";
    pub const REFRESH_AHEAD: &str = "refresh ahead";

    /// A failed worker's partitions go to others: from its last sign of life to the table without it. The leading monitor's, and the
    /// beginning of the trace. Its id is the lower half of the trace's, so that whoever knows the trace can tell more below it.
    pub const FAILOVER: &str = "failover";
    /// The same where nobody failed: a worker came or left.
    pub const ASSIGNMENT: &str = "assignment";
    /// One monitor's view of a worker, from its last sign of life until that is settled. Below it a span for each state that it was in.
    pub const SUSPICION: &str = "suspicion";
    /// The same of a worker that the table has off-line, from then until it comes back.
    pub const ABSENCE: &str = "absence";
    /// Until a beat was overdue.
    pub const SILENCE: &str = "silence";
    /// From the leading monitor's own vote to that of enough others.
    pub const MAJORITY: &str = "majority";
    /// The transaction that changes the table.
    pub const SWITCH: &str = "switch";
    /// A worker's, from the table that gives it partitions until their fences are up; below the switch.
    pub const TAKEOVER: &str = "takeover";
}

/// Values of `db.system.name`.
pub mod system {
    pub const REDIS: &str = "redis";
    /// As the client's protocol: the server may be MariaDB.
    pub const MYSQL: &str = "mysql";
    pub const ETCD: &str = "etcd";
}

#[cfg(test)]
mod tests {
    use opentelemetry_semantic_conventions as conventions;

    use super::{attribute as ours, resource};

    #[test]
    fn the_words_are_those_of_the_conventions() {
        use conventions::attribute as theirs;
        for (ours, theirs) in [
            (super::SCHEMA_URL, conventions::SCHEMA_URL),
            (resource::SERVICE_NAME, theirs::SERVICE_NAME),
            (resource::SERVICE_NAMESPACE, theirs::SERVICE_NAMESPACE),
            (resource::SERVICE_VERSION, theirs::SERVICE_VERSION),
            (resource::SERVICE_INSTANCE_ID, theirs::SERVICE_INSTANCE_ID),
            (ours::ERROR_TYPE, theirs::ERROR_TYPE),
            (ours::HTTP_REQUEST_METHOD, theirs::HTTP_REQUEST_METHOD),
            (ours::HTTP_RESPONSE_STATUS_CODE, theirs::HTTP_RESPONSE_STATUS_CODE),
            (ours::HTTP_ROUTE, theirs::HTTP_ROUTE),
            (ours::URL_FULL, theirs::URL_FULL),
            (ours::URL_PATH, theirs::URL_PATH),
            (ours::URL_QUERY, theirs::URL_QUERY),
            (ours::URL_SCHEME, theirs::URL_SCHEME),
            (ours::SERVER_ADDRESS, theirs::SERVER_ADDRESS),
            (ours::SERVER_PORT, theirs::SERVER_PORT),
            (ours::DB_SYSTEM_NAME, theirs::DB_SYSTEM_NAME),
            (ours::DB_NAMESPACE, theirs::DB_NAMESPACE),
            (ours::DB_COLLECTION_NAME, theirs::DB_COLLECTION_NAME),
            (ours::DB_OPERATION_NAME, theirs::DB_OPERATION_NAME),
            (ours::DB_OPERATION_BATCH_SIZE, theirs::DB_OPERATION_BATCH_SIZE),
            (ours::DB_QUERY_SUMMARY, theirs::DB_QUERY_SUMMARY),
            (ours::DB_RESPONSE_RETURNED_ROWS, theirs::DB_RESPONSE_RETURNED_ROWS),
            (ours::DB_CLIENT_CONNECTION_POOL_NAME, theirs::DB_CLIENT_CONNECTION_POOL_NAME),
        ] {
            assert_eq!(ours, theirs);
        }
    }
}
