//! What each place on the path of a request counted over a whole step, and whether the counts add up. Pure.
//!
//! The whole step is warm-up, measured part and drain: only then has every request ended everywhere. `links` compares neighbours on the
//! path. A difference is either explained by other counts, each with its name, or it is unexplained.

use std::collections::BTreeMap;

pub use loadtest::figures::{RequestCounts, Tries};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Commands of a new connection before its first query: session settings, the kind of server, the time limit of statements.
const COMMANDS_PER_CONNECT: u64 = 3;
/// A rebuild of the filter reads each shard; a request that writes reads each shard at most.
const SHARDS: u64 = 16;
/// At most, to read a model or to write: one checkout counts as one query.
const COMMANDS_OF_A_TRANSACTION: u64 = 64;

/// The counts of one step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    pub generator: RequestCounts,
    pub gateway: GatewayCounts,
    /// By admin address.
    pub replicas: BTreeMap<String, ReplicaCounts>,
    /// Commands with a response that reached faultproxy.
    pub proxied_commands: u64,
    /// Why counts are missing or began anew; the step's counts do not add up then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
}

/// Lines of nginx's access log for the route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayCounts {
    /// Requests of the load generator, by its User-Agent.
    pub generator: u64,
    /// Requests of all other clients.
    pub others: u64,
    /// Requests that reached no replica.
    pub not_passed_on: u64,
    /// Attempts that had a connection to a replica; with slots a request may have several.
    pub attempts: u64,
    /// Status 499 after a connection to a replica: the user went away.
    pub closed_by_client: u64,
    /// Status 502 after a connection to a replica: it broke before the response.
    pub bad_gateway: u64,
}

/// Growth of a replica's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplicaCounts {
    /// Requests of the route with a response.
    pub ended: u64,
    /// Requests of the route whose client went away before the response.
    pub abandoned: u64,
    /// Of `ended`, status 4xx.
    pub client_errors: u64,
    /// Of `ended`, status 5xx.
    pub server_errors: u64,
    /// Requests of other routes.
    pub other_routes: u64,

    /// Requests by what decided the answer; see `recommendation_paths_total`.
    pub invalid: u64,
    pub refused: u64,
    pub memory: u64,
    pub filter: u64,
    pub redis: u64,
    pub no_behaviour: u64,
    pub store: u64,
    pub undecided: u64,

    /// Fresh lists found in Redis, also by loads that look again.
    pub redis_hits: u64,
    /// Loads of refreshes ahead of expiry.
    pub refreshes: u64,
    /// Further loads of requests that the first one did not serve.
    pub repeated: u64,
    pub joined: u64,
    pub led: u64,
    /// Loads of unverified users that were refused.
    pub unverified_refused: u64,
    /// Loads that read the log after the row of features.
    pub second_reads: u64,
    /// Rebuilds of the filter, failed ones included.
    pub rebuilds: u64,

    /// Requests for a connection to a shard.
    pub checkouts: u64,
    pub checkout_timeouts: u64,
    pub queue_full: u64,
    /// Connections that were handed out for a shard.
    pub connections_given: u64,
    /// Connections that were handed out for the catalogue.
    pub model_reads: u64,
    /// Not tried, because connecting had failed shortly before.
    pub down: u64,
    /// A connection or a query failed.
    pub unavailable: u64,
    pub retries: u64,
    /// Queries sent to the store.
    pub queries: u64,
    /// Attempts to connect to the store.
    pub connects: u64,
}

/// Two counts that must be equal but for what is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What is compared, such as `load generator = nginx`.
    pub name: &'static str,
    pub left: u64,
    pub right: u64,
    /// Only what occurred.
    pub known: Vec<Known>,
}

/// A named part of left − right. `from` < `to`: the counters bound it but do not tell it exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub what: &'static str,
    pub from: i64,
    pub to: i64,
}

impl Link {
    pub fn difference(&self) -> i64 {
        signed(self.left) - signed(self.right)
    }

    /// The part of the difference that nothing explains; 0: the link holds.
    pub fn unexplained(&self) -> i64 {
        let from: i64 = self.known.iter().map(|known| known.from).sum();
        let to: i64 = self.known.iter().map(|known| known.to).sum();
        self.difference() - self.difference().clamp(from, to)
    }
}

impl Counts {
    /// The chain from the load generator to the store.
    pub fn links(&self) -> Vec<Link> {
        let links = [
            self.generator_and_gateway(),
            self.gateway_and_replicas(),
            self.requests_and_paths(),
            self.misses_and_loads(),
            self.loads_and_checkouts(),
            self.checkouts_and_queries(),
            self.queries_and_commands(),
        ];
        self.tries_and_generator().into_iter().chain(links).collect()
    }

    /// No doubt, and no link with an unexplained difference.
    pub fn add_up(&self) -> bool {
        self.doubts.is_empty() && self.links().iter().all(|link| link.unexplained() == 0)
    }

    /// Over all replicas.
    fn sum(&self, count: impl Fn(&ReplicaCounts) -> u64) -> u64 {
        self.replicas.values().map(count).sum()
    }

    /// `None` without retries: a request is its only try.
    fn tries_and_generator(&self) -> Option<Link> {
        let Tries { first, retries } = self.generator.tries?;
        Some(link("first tries + retries = load generator", first + retries, self.generator.requests, Vec::new()))
    }

    fn generator_and_gateway(&self) -> Link {
        let RequestCounts { requests, unsent, resent, .. } = self.generator;
        let known = vec![
            exactly("requests that were not sent (no connection)", signed(unsent)),
            // nginx logs the first copy only if it read it.
            up_to("requests that the client sent again", -signed(resent)),
            exactly("requests of other clients", -signed(self.gateway.others)),
        ];
        link("load generator = nginx", requests, self.gateway.generator + self.gateway.others, known)
    }

    fn gateway_and_replicas(&self) -> Link {
        let GatewayCounts { generator, others, not_passed_on, attempts, closed_by_client, bad_gateway } = self.gateway;
        let lines = generator + others;
        let further = signed(attempts) - (signed(lines) - signed(not_passed_on));
        let unread = closed_by_client.saturating_sub(self.sum(|replica| replica.abandoned));
        let known = vec![
            exactly("requests that reached no replica", signed(not_passed_on)),
            exactly("further attempts of nginx", -further),
            up_to("users who left before the replica read the request (499)", signed(unread)),
            up_to("connections to a replica that broke (502)", signed(bad_gateway)),
        ];
        link("nginx = replicas", lines, self.sum(|replica| replica.ended + replica.abandoned), known)
    }

    fn requests_and_paths(&self) -> Link {
        let requests = self.sum(|replica| replica.ended + replica.abandoned);
        let paths = self.sum(|replica| {
            let before = replica.invalid + replica.refused + replica.undecided;
            before + replica.memory + replica.filter + replica.redis + replica.no_behaviour + replica.store
        });
        let refused = self.sum(|replica| replica.client_errors.saturating_sub(replica.invalid));
        let known = vec![exactly("methods that the route does not have", signed(refused))];
        link("requests = memory + filter + Redis + store + refused", requests, paths, known)
    }

    fn misses_and_loads(&self) -> Link {
        let of = |count: fn(&ReplicaCounts) -> u64| signed(self.sum(count));
        let known = vec![
            exactly("shared a load of another request", of(|replica| replica.joined)),
            exactly(
                "found in Redis by the load's second look",
                of(|replica| replica.redis_hits.saturating_sub(replica.redis)),
            ),
            exactly("refused as unverified", of(|replica| replica.unverified_refused)),
            exactly("loaded again for the same request", -of(|replica| replica.repeated)),
            exactly("refreshed ahead of expiry", -of(|replica| replica.refreshes)),
        ];
        link("requests that need the store = loads", self.sum(|r| r.store), self.sum(|r| r.led), known)
    }

    fn loads_and_checkouts(&self) -> Link {
        let of = |count: fn(&ReplicaCounts) -> u64| signed(self.sum(count));
        let known = vec![
            exactly("second reads, of users without features", -of(|replica| replica.second_reads)),
            up_to("reads to rebuild the filter", -of(|replica| replica.rebuilds * SHARDS)),
            up_to("requests of other routes", -of(|replica| replica.other_routes * SHARDS)),
        ];
        link("loads = requests for a connection", self.sum(|r| r.led), self.sum(|r| r.checkouts), known)
    }

    fn checkouts_and_queries(&self) -> Link {
        let of = |count: fn(&ReplicaCounts) -> u64| signed(self.sum(count));
        let ended = of(|r| r.checkout_timeouts + r.queue_full + r.connections_given);
        // Only a request that was abandoned, or that failed for another reason, can have left the queue.
        let failed = of(|r| r.server_errors) - of(|r| r.checkout_timeouts + r.queue_full);
        let most = of(|r| r.abandoned + r.repeated) + failed.max(0);
        let left = (of(|r| r.checkouts) - ended).clamp(0, most);
        let known = vec![
            exactly("no connection in time", of(|replica| replica.checkout_timeouts)),
            exactly("queue for connections full", of(|replica| replica.queue_full)),
            exactly("left the queue (the user went away, or the deadline)", left),
            exactly("store known to be down", of(|replica| replica.down)),
            up_to("connecting failed", of(|replica| replica.unavailable)),
            exactly("queries sent again on a new connection", -of(|replica| replica.retries)),
            exactly("reads of the model", -of(|replica| replica.model_reads)),
        ];
        link("requests for a connection = queries", self.sum(|r| r.checkouts), self.sum(|r| r.queries), known)
    }

    fn queries_and_commands(&self) -> Link {
        let of = |count: fn(&ReplicaCounts) -> u64| signed(self.sum(count));
        let known = vec![
            up_to("queries on connections that broke", of(|replica| replica.retries + replica.unavailable)),
            up_to("handshakes of new connections", -of(|replica| replica.connects * COMMANDS_PER_CONNECT)),
            up_to(
                "reads of the model, and writes",
                -of(|replica| (replica.model_reads + replica.other_routes) * COMMANDS_OF_A_TRANSACTION),
            ),
        ];
        link("queries = commands of faultproxy", self.sum(|r| r.queries), self.proxied_commands, known)
    }
}

fn link(name: &'static str, left: u64, right: u64, known: Vec<Known>) -> Link {
    let known = known.into_iter().filter(|known| (known.from, known.to) != (0, 0)).collect();
    Link { name, left, right, known }
}

fn exactly(what: &'static str, count: i64) -> Known {
    Known { what, from: count, to: count }
}

/// Between 0 and `limit`, which may be below 0.
fn up_to(what: &'static str, limit: i64) -> Known {
    Known { what, from: limit.min(0), to: limit.max(0) }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
