//! Names of spans and attributes, by OpenTelemetry's semantic conventions. HTTP and MySQL are stable there, Redis is not yet. Names that the
//! conventions do not define begin with `testbed.`. A test compares the others with the crate of the conventions.

/// The version of the conventions.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.42.0";

/// Attributes of the process.
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

    pub const MESSAGING_SYSTEM: &str = "messaging.system";
    pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
    pub const MESSAGING_DESTINATION_PARTITION_ID: &str = "messaging.destination.partition.id";
    pub const MESSAGING_OPERATION_NAME: &str = "messaging.operation.name";
    pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
    pub const MESSAGING_BATCH_MESSAGE_COUNT: &str = "messaging.batch.message_count";

    /// The source of a list: `cache`, `store`, `popular`, `stale`.
    pub const ANSWER_SOURCE: &str = "testbed.answer.source";
    /// The guard's result for the user: `present`, `absent`, `newcomer`, `unsure`.
    pub const GUARD_RESULT: &str = "testbed.guard.result";
    /// The result of the read from Redis: `hit`, `miss`, `expired`, `error`.
    pub const CACHE_RESULT: &str = "testbed.cache.result";
    /// True on the single span of a request that was not sampled, but failed or was slow. It has no children.
    pub const RETROSPECTIVE: &str = "testbed.retrospective";
    /// True on a span whose trace must be kept: of a request that is an exemplar of a histogram's bucket, or a decision of the autoscaler
    /// that changes the number of replicas.
    pub const EXEMPLAR: &str = "testbed.exemplar";
    /// Items ranked or written.
    pub const ITEMS: &str = "testbed.items";
    /// The worker or workers of the span.
    pub const NODE: &str = "testbed.node";
    pub const INCARNATION: &str = "testbed.incarnation";
    /// Epoch of the partition table.
    pub const EPOCH: &str = "testbed.epoch";
    /// Partitions that get another owner.
    pub const PARTITIONS: &str = "testbed.partitions";
    pub const VOTES: &str = "testbed.votes";
    /// Number of a segment of the model.
    pub const SEGMENT: &str = "testbed.segment";
    /// Blocks of a segment's file that are moved.
    pub const BLOCKS: &str = "testbed.blocks";
    pub const BYTES: &str = "testbed.bytes";
    /// Why a copy of a segment is repaired: `damaged`, `stale`, `missing`, `lost`.
    pub const CAUSE: &str = "testbed.cause";
    /// The end of a suspicion: `confirmed`, or the evidence that refuted it. The end of a replica's start: `ready`, `left` or `ended`.
    pub const OUTCOME: &str = "testbed.outcome";

    /// `Resource` or `ContainerResource`: the metric that the autoscaler follows.
    pub const K8S_HPA_METRIC_TYPE: &str = "k8s.hpa.metric.type";
    /// Of a decision of the autoscaler: replicas before it, those that the metrics ask for (-1: they have no answer), and replicas after it.
    pub const REPLICAS_BEFORE: &str = "testbed.replicas.before";
    pub const REPLICAS_PROPOSED: &str = "testbed.replicas.proposed";
    pub const REPLICAS_AFTER: &str = "testbed.replicas.after";
    /// Mean use of the CPU request by the pods that count, in percent.
    pub const UTILIZATION: &str = "testbed.utilization.percent";
    /// The autoscaler's conditions as Kubernetes shows them: `AbleToScale=True/SucceededRescale …`.
    pub const CONDITIONS: &str = "testbed.conditions";
    /// Name of the replica of the span: `api-3`.
    pub const REPLICA: &str = "testbed.replica";
}

/// Values of `messaging.operation.type`, by which the spans of messages are named too: `send behaviour`.
pub mod operation {
    pub const SEND: &str = "send";
    pub const PROCESS: &str = "process";
}

/// Names of internal spans. Spans of requests, commands and queries are named after the operation, such as `GET /recommendations`, `GET`,
/// `SELECT behaviour`.
pub mod name {
    /// Wait in the queue for admission. Only if the request had to wait.
    pub const ADMISSION_WAIT: &str = "admission wait";
    /// From a miss to the list: connection, query, ranking.
    pub const LOAD: &str = "load";
    /// Wait for a load that another request started. Linked to that load if it is recorded.
    pub const LOAD_WAIT: &str = "load wait";
    /// Wait for a connection of the pool.
    pub const POOL_WAIT: &str = "pool wait";
    pub const RANK: &str = "rank";
    /// The declared CPU cost of a request: computing, or the wait for the virtual CPU. Only with `http.work_us`.
    pub const WORK: &str = "work";
    /// Background write of a list to Redis, after the response.
    pub const CACHE_FILL: &str = "cache fill";
    pub const REFRESH_AHEAD: &str = "refresh ahead";

    /// The failover of a failed worker's partitions: from its last heartbeat to the new partition table. Recorded by the leading monitor,
    /// as the root of the trace. Its id is the lower half of the trace id, so that other processes can add child spans.
    pub const FAILOVER: &str = "failover";
    /// A change of the partition table without a failure: a worker has joined or left.
    pub const ASSIGNMENT: &str = "assignment";
    /// One monitor's suspicion of a worker, from its last heartbeat until the suspicion is confirmed or refuted. It has a child span for
    /// each state.
    pub const SUSPICION: &str = "suspicion";
    /// The absence of a worker that is off-line in the table, until it returns.
    pub const ABSENCE: &str = "absence";
    /// Blocks of a segment come from another worker.
    pub const SEGMENT_TRANSFER: &str = "segment transfer";
    /// A version of a segment is folded again from the logs.
    pub const SEGMENT_REBUILD: &str = "segment rebuild";
    /// A worker that is no holder any more removes its copy.
    pub const SEGMENT_REMOVE: &str = "segment remove";

    /// Until a heartbeat was overdue.
    pub const SILENCE: &str = "silence";
    /// From the leading monitor's vote to a majority.
    pub const MAJORITY: &str = "majority";
    /// The transaction that writes the partition table.
    pub const SWITCH: &str = "switch";
    /// A worker's batch of events, from the messages to the lists. It continues the trace of the first recorded request, and is linked to
    /// the others. Named as `operation::PROCESS` and the topic.
    pub const PROCESS_BEHAVIOUR: &str = "process behaviour";

    /// In a worker: from the table that assigns it partitions until these are fenced. A child of `switch`.
    pub const TAKEOVER: &str = "takeover";

    /// The repair of a worker's copy of a segment, as the root of its trace: from the plan that found it damaged, stale or missing to the
    /// report that shows it good. Recorded by the leading monitor; orders carry its context.
    pub const REPAIR_SEGMENT: &str = "repair segment";

    /// A decision of the autoscaler, as the root of its trace: until the replicas that it started are ready and those that leave have ended.
    /// Its events are the planner's sentences.
    pub const AUTOSCALE: &str = "autoscale";
    /// From the start of a replica's process until it is ready. A child of `autoscale`.
    pub const START_REPLICA: &str = "start replica";
    /// From SIGTERM to the end of a replica that leaves. A child of `autoscale`.
    pub const DRAIN_REPLICA: &str = "drain replica";
}

/// Values of `db.system.name`.
pub mod system {
    pub const REDIS: &str = "redis";
    /// The client's protocol; the server may be MariaDB.
    pub const MYSQL: &str = "mysql";
    pub const ETCD: &str = "etcd";
    /// Of `messaging.system`.
    pub const KAFKA: &str = "kafka";
}

#[cfg(test)]
mod tests {
    use opentelemetry_semantic_conventions as conventions;

    use super::{attribute as ours, resource};

    #[test]
    fn the_names_are_those_of_the_conventions() {
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
            (ours::MESSAGING_SYSTEM, theirs::MESSAGING_SYSTEM),
            (ours::MESSAGING_DESTINATION_NAME, theirs::MESSAGING_DESTINATION_NAME),
            (ours::MESSAGING_DESTINATION_PARTITION_ID, theirs::MESSAGING_DESTINATION_PARTITION_ID),
            (ours::MESSAGING_OPERATION_NAME, theirs::MESSAGING_OPERATION_NAME),
            (ours::MESSAGING_OPERATION_TYPE, theirs::MESSAGING_OPERATION_TYPE),
            (ours::MESSAGING_BATCH_MESSAGE_COUNT, theirs::MESSAGING_BATCH_MESSAGE_COUNT),
            (ours::K8S_HPA_METRIC_TYPE, theirs::K8S_HPA_METRIC_TYPE),
        ] {
            assert_eq!(ours, theirs);
        }
    }
}
