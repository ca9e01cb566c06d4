//! Etcd and the registry in memory give the same answers to the same requests.

use heartbeat::{
    assign::Table,
    registry::{InMemoryRegistry, Monitors, Registration, Request, Response},
};
use launcher::{Signal, Stack, etcd, testing};
use monitor::etcd::Registry;

const TTL: u64 = 2_000_000_000;

/// A response without the registry's own numbers.
#[derive(Debug, PartialEq)]
enum Shape {
    Leading { same_term: bool },
    Registry { nodes: Vec<(String, u64, bool)>, leader: Option<String>, has_table: bool, epoch: u64, monitors: u64 },
    Committed,
    Other(Response),
}

#[derive(Default)]
struct Reader {
    term: u64,
    table_revision: u64,
}

impl Reader {
    fn shape(&mut self, response: Response) -> Shape {
        match response {
            Response::Leading { term } => Shape::Leading { same_term: std::mem::replace(&mut self.term, term) == term },
            Response::Committed { table_revision } => {
                assert!(table_revision > self.table_revision);
                self.table_revision = table_revision;
                Shape::Committed
            }
            Response::Snapshot(snapshot) => {
                assert!(snapshot.revision >= snapshot.table_revision);
                assert_eq!(snapshot.table_revision, self.table_revision);
                if let Some(leader) = &snapshot.leader {
                    assert_eq!(leader.term, self.term);
                }
                let node = |n: &Registration| (n.id.to_string(), n.incarnation, n.leaving);
                Shape::Registry {
                    nodes: snapshot.nodes.values().map(node).collect(),
                    leader: snapshot.leader.as_ref().map(|leader| leader.monitor.to_string()),
                    has_table: snapshot.table_revision > 0,
                    epoch: snapshot.table.epoch,
                    monitors: snapshot.monitors.as_ref().map_or(0, |monitors| monitors.version),
                }
            }
            other => Shape::Other(other),
        }
    }
}

/// A request that follows from the answers before.
fn script() -> Vec<fn(&Reader) -> Request> {
    fn registration(incarnation: u64, leaving: bool) -> Registration {
        let (http, udp) = ("127.0.0.1:1".into(), "127.0.0.1:2".into());
        Registration { id: "w".into(), incarnation, process: 1, http, udp, leaving }
    }
    fn register(incarnation: u64, leaving: bool) -> Request {
        Request::Register(registration(incarnation, leaving))
    }
    fn forget(incarnation: u64) -> Request {
        Request::Forget(registration(incarnation, false))
    }
    fn set_monitors(version: u64) -> Request {
        Request::SetMonitors(Monitors { version, members: [("a".into(), "127.0.0.1:1".into())].into() })
    }
    fn campaign(monitor: &str) -> Request {
        Request::Campaign { monitor: monitor.into(), ttl: TTL }
    }
    fn commit(term: u64, table_revision: u64, epoch: u64) -> Request {
        Request::Commit { term, table_revision, monitors_version: 0, table: Table { epoch, ..Table::default() } }
    }
    vec![
        |_| Request::Read,
        |_| commit(0, 0, 1),
        |_| campaign("a"),
        |_| campaign("a"),
        |_| register(5, false),
        |_| register(5, false),
        |_| register(4, false),
        |_| register(5, true),
        |_| Request::Read,
        |seen| commit(seen.term + 1, 0, 1),
        |seen| commit(seen.term, 7, 1),
        |seen| commit(seen.term, 0, 1),
        |seen| commit(seen.term, 0, 2),
        |seen| commit(seen.term, seen.table_revision, 2),
        |_| register(6, false),
        |_| Request::Read,
        |_| set_monitors(2),
        |_| set_monitors(1),
        |seen| commit(seen.term, seen.table_revision, 3),
        |_| Request::Read,
        |seen| Request::Commit {
            term: seen.term,
            table_revision: seen.table_revision,
            monitors_version: 2,
            table: Table { epoch: 3, ..Table::default() },
        },
        |_| forget(5),
        |_| Request::Read,
        |_| forget(6),
        |_| Request::Read,
        |_| Request::Resign { monitor: "a".into() },
        |_| Request::Read,
    ]
}

#[tokio::test]
async fn etcd_and_the_registry_in_memory_answer_alike() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let mut stack = Stack::create("test-registry").unwrap();
    let server = etcd::start(&mut stack, &etcd::Options::default()).await.unwrap();
    let registry = Registry::new(&[server.url], "/test/").await.unwrap();
    let (mut memory, mut of_memory, mut of_etcd) = (InMemoryRegistry::default(), Reader::default(), Reader::default());
    for (step, request) in script().into_iter().enumerate() {
        let expected = memory.apply(0, request(&of_memory));
        let found = registry.apply(request(&of_etcd)).await.unwrap();
        assert_eq!(of_etcd.shape(found), of_memory.shape(expected), "step {step}");
    }
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn another_monitor_follows_until_the_leader_resigns() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let mut stack = Stack::create("test-lead").unwrap();
    let server = etcd::start(&mut stack, &etcd::Options::default()).await.unwrap();
    let campaign = |monitor: &str| Request::Campaign { monitor: monitor.into(), ttl: TTL };
    let a = Registry::new(std::slice::from_ref(&server.url), "/test/").await.unwrap();
    let b = Registry::new(&[server.url], "/test/").await.unwrap();
    let Response::Leading { term } = a.apply(campaign("a")).await.unwrap() else { panic!("nobody else is there") };
    assert_eq!(b.apply(campaign("b")).await.unwrap(), Response::Following("a".into()));
    a.resign().await;
    let Response::Leading { term: next } = b.apply(campaign("b")).await.unwrap() else { panic!("it was free") };
    assert!(next > term);
    let stale = Request::Commit { term, table_revision: 0, monitors_version: 0, table: Table::default() };
    assert_eq!(a.apply(stale).await.unwrap(), Response::Conflict);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn an_etcd_that_stands_still_is_late_and_comes_back_with_all_it_knew() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let mut stack = Stack::create("test-away").unwrap();
    let server = etcd::start(&mut stack, &etcd::Options::default()).await.unwrap();
    let registry = Registry::new(std::slice::from_ref(&server.url), "/test/").await.unwrap();
    let (http, udp) = ("127.0.0.1:1".into(), "127.0.0.1:2".into());
    let node = Registration { id: "w".into(), incarnation: 1, process: 1, http, udp, leaving: false };
    assert_eq!(registry.apply(Request::Register(node)).await.unwrap(), Response::Registered);
    stack.kill(server.child, Signal::SIGSTOP).unwrap();
    // A thread on another processor may answer once more.
    crate::support::eventually("etcd stands still", async || registry.apply(Request::Read).await.is_err()).await;
    stack.kill(server.child, Signal::SIGKILL).unwrap();
    stack.stop_child(server.child).await.unwrap();
    registry.apply(Request::Read).await.unwrap_err();
    let again = etcd::Options { ports: Some(server.ports), ..etcd::Options::default() };
    etcd::start(&mut stack, &again).await.unwrap();
    crate::support::eventually("the registry answers again", async || {
        let answer = registry.apply(Request::Read).await;
        matches!(answer, Ok(Response::Snapshot(snapshot)) if snapshot.nodes.contains_key("w"))
    })
    .await;
    stack.stop().await.unwrap();
}
