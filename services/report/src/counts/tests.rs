//! Counts of a small step, and what each lost or added count does to them.

use super::*;

/// 100 requests on two replicas: 40 lists from Redis, 30 unknown ids, 30 loads of which 2 wait for a connection in vain.
fn counts() -> Counts {
    let replica = ReplicaCounts {
        ended: 50,
        server_errors: 1,
        filter: 15,
        redis: 20,
        redis_hits: 20,
        store: 15,
        led: 15,
        checkouts: 15,
        checkout_timeouts: 1,
        connections_given: 14,
        queries: 14,
        ..ReplicaCounts::default()
    };
    Counts {
        generator: RequestCounts { requests: 100, ..RequestCounts::default() },
        gateway: GatewayCounts { generator: 100, attempts: 100, ..GatewayCounts::default() },
        replicas: ["a", "b"].map(|name| (name.to_owned(), replica.clone())).into(),
        proxied_commands: 28,
        doubts: Vec::new(),
    }
}

fn replica(counts: &mut Counts) -> &mut ReplicaCounts {
    counts.replicas.get_mut("a").expect("a replica")
}

/// Names and amounts of what is unexplained.
fn unexplained(change: impl FnOnce(&mut Counts)) -> Vec<(&'static str, i64)> {
    let mut changed = counts();
    change(&mut changed);
    let links = changed.links();
    links.iter().map(|link| (link.name, link.unexplained())).filter(|(_, amount)| *amount != 0).collect()
}

#[test]
fn equal_counts_add_up() {
    assert!(counts().add_up());
    assert!(Counts::default().add_up());
    let doubtful = Counts { doubts: vec!["a restarted".into()], ..counts() };
    assert!(!doubtful.add_up());
}

#[test]
fn each_lost_or_added_count_is_found_at_its_place() {
    type Change = fn(&mut Counts);
    let cases: [(Change, &[(&str, i64)]); 9] = [
        // A line of the access log is lost.
        (
            |c| (c.gateway.generator, c.gateway.attempts) = (99, 99),
            &[("load generator = nginx", 1), ("nginx = replicas", -1)],
        ),
        // A request past the gateway.
        (|c| (replica(c).ended, replica(c).redis, replica(c).redis_hits) = (51, 21, 21), &[("nginx = replicas", -1)]),
        // The load generator counts a request that it did not send.
        (|c| c.generator.requests = 101, &[("load generator = nginx", 1)]),
        (
            |c| replica(c).ended = 49,
            &[("nginx = replicas", 1), ("requests = memory + filter + Redis + store + refused", -1)],
        ),
        (|c| replica(c).filter = 14, &[("requests = memory + filter + Redis + store + refused", 1)]),
        (
            |c| replica(c).led = 14,
            &[("requests that need the store = loads", 1), ("loads = requests for a connection", -1)],
        ),
        (
            |c| replica(c).checkouts = 16,
            &[("loads = requests for a connection", -1), ("requests for a connection = queries", 1)],
        ),
        (
            |c| replica(c).queries = 13,
            &[("requests for a connection = queries", 1), ("queries = commands of faultproxy", -1)],
        ),
        (|c| c.proxied_commands = 29, &[("queries = commands of faultproxy", -1)]),
    ];
    for (n, (change, expected)) in cases.into_iter().enumerate() {
        assert_eq!(unexplained(change), expected, "case {n}");
    }
}

#[test]
fn what_is_known_explains_a_difference_and_no_more() {
    type Change = fn(&mut Counts);
    let explained: [Change; 8] = [
        |c| (c.generator.requests, c.generator.unsent) = (103, 3),
        |c| (c.gateway.others, c.gateway.attempts, replica(c).ended, replica(c).memory) = (2, 102, 52, 2),
        // The server saw the first copy, too.
        |c| {
            (c.generator.resent, c.gateway.generator, c.gateway.attempts) = (1, 101, 101);
            (replica(c).ended, replica(c).memory) = (51, 1);
        },
        // nginx answered without a replica.
        |c| (c.generator.requests, c.gateway.generator, c.gateway.not_passed_on) = (105, 105, 5),
        // A request that reached a replica only in its second attempt, both with a connection.
        |c| (c.gateway.attempts, replica(c).abandoned, replica(c).undecided) = (101, 1, 1),
        // A user who left.
        |c| {
            c.gateway.closed_by_client = 1;
            (replica(c).ended, replica(c).abandoned) = (49, 1);
        },
        // Shared loads, a second look, and a refresh.
        |c| {
            let replica = replica(c);
            (replica.joined, replica.redis_hits, replica.refreshes) = (3, 22, 1);
            (replica.led, replica.checkouts, replica.connections_given, replica.queries) = (11, 11, 10, 10);
            c.proxied_commands = 24;
        },
        // A connection that broke: the query is sent again, and its new connection has commands of its own.
        |c| {
            (replica(c).retries, replica(c).connects, replica(c).queries) = (1, 1, 15);
            c.proxied_commands = 30;
        },
    ];
    for (n, change) in explained.into_iter().enumerate() {
        assert_eq!(unexplained(change), [], "case {n}");
    }
    // As many as are named, not more.
    assert_eq!(unexplained(|c| (c.generator.requests, c.generator.unsent) = (103, 2)), [("load generator = nginx", 1)]);
    // Without a user who went away nothing leaves the queue.
    let lost = unexplained(|c| (replica(c).checkout_timeouts, replica(c).server_errors) = (0, 0));
    assert_eq!(lost, [("requests for a connection = queries", 1)]);
}

#[test]
fn a_count_that_fell_is_below_what_it_should_be() {
    // As a replica that restarts in the middle of a step shows it.
    let fallen =
        unexplained(|c| *replica(c) = ReplicaCounts { ended: 10, redis: 10, redis_hits: 10, ..Default::default() });
    assert_eq!(fallen[0], ("nginx = replicas", 40));
}
