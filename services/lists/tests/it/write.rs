//! Which list stays in Redis.

use std::time::Duration;

use contract::{ItemId, UserId, keys};
use launcher::{Signal, Stack, redis as server};
use lists::{RankedList, Replaces, Written, set_list, set_lists};
use prometheus::Registry;
use redis::AsyncCommands;
use stores::{
    StoreMetrics,
    redis::{Redis, RedisConfig},
};

const NOW_MS: u64 = 1_000_000;
const FRESH_MS: u64 = 60_000;
const STALE_MS: u64 = 30_000;
const TIMES: (u64, u64) = (NOW_MS, STALE_MS);

/// `None`: no server here.
async fn start() -> Option<(Stack, server::Redis, Redis)> {
    if !launcher::testing::have(&["redis-server"]) {
        return None;
    }
    let mut stack = Stack::create("test-lists-redis").unwrap();
    let server = server::start(&mut stack, &server::Options::default()).await.unwrap();
    let config = RedisConfig { url: server.url.clone(), response_timeout_ms: 10_000, connect_timeout_ms: 10_000 };
    let redis = config.guarded(StoreMetrics::new(&Registry::new()).unwrap().redis).unwrap();
    Some((stack, server, redis))
}

fn user(n: usize) -> UserId {
    UserId::new(&format!("u{n}")).unwrap()
}

/// A list that says in its only item how it was made.
fn list(item: &str, arrival: u64) -> RankedList {
    let item = ItemId::new(item).unwrap();
    RankedList::encode([(&item, 1.0)].into_iter(), true, 1, NOW_MS + FRESH_MS, arrival)
}

async fn stored(redis: &mut Redis, user_id: &UserId) -> Vec<u8> {
    redis.get(keys::recommendations(user_id.as_str())).await.unwrap()
}

#[tokio::test]
async fn an_older_list_never_replaces_a_newer_one() {
    let Some((_stack, _server, mut redis)) = start().await else { return };
    let redis = &mut redis;
    // In ascending order. The numbers differ in one half only, and beyond the 53 bits of a double.
    let arrivals =
        [0, 1, 255, 256, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 1 << 53, (1 << 53) + 1, u64::MAX - 1, u64::MAX];
    for (n, older) in arrivals.into_iter().enumerate() {
        for (m, newer) in arrivals.into_iter().enumerate().skip(n) {
            let user_id = user(n * arrivals.len() + m);
            let set = async |redis: &mut Redis, list: &RankedList| {
                set_list(&user_id, list, Replaces::NotNewer, TIMES, redis).await.unwrap()
            };
            let (first, second, last) = (list("first", older), list("second", newer), list("last", older));
            assert_eq!(set(redis, &first).await, Written::Set);
            assert_eq!(set(redis, &second).await, Written::Set, "{newer} after {older}");
            let (written, remains) = if older == newer { (Written::Set, &last) } else { (Written::KeptNewer, &second) };
            assert_eq!(set(redis, &last).await, written, "{older} after {newer}");
            assert_eq!(stored(redis, &user_id).await, *remains.bytes());
        }
    }
    let left: u64 = redis.pttl(keys::recommendations("u0")).await.unwrap();
    assert!((1..=FRESH_MS + STALE_MS).contains(&left), "{left}");
}

#[tokio::test]
async fn other_formats_and_lists_without_numbers_are_replaced() {
    let Some((_stack, _server, mut redis)) = start().await else { return };
    let redis = &mut redis;
    let newer = list("newer", 9);
    let mut format_1 = list("old", 99).bytes().to_vec();
    format_1[0] = 1;
    for old in [&b""[..], b"\x02", &newer.bytes()[..27], &format_1] {
        let () = redis.set(keys::recommendations("u0"), old).await.unwrap();
        assert_eq!(set_list(&user(0), &newer, Replaces::NotNewer, TIMES, redis).await.unwrap(), Written::Set);
        assert_eq!(stored(redis, &user(0)).await, *newer.bytes());
    }
    // Without arrival numbers the last writer wins.
    let plain = list("plain", 0);
    assert_eq!(set_list(&user(0), &plain, Replaces::Any, TIMES, redis).await.unwrap(), Written::Set);
    assert_eq!(stored(redis, &user(0)).await, *plain.bytes());
}

#[tokio::test]
async fn many_lists_are_written_in_one_round_trip() {
    let Some((_stack, _server, mut redis)) = start().await else { return };
    let redis = &mut redis;
    for replaces in [Replaces::NotNewer, Replaces::Any] {
        let old: Vec<(UserId, RankedList)> = (0..200).map(|n| (user(n), list("old", 10))).collect();
        assert_eq!(set_lists(&old, Replaces::Any, TIMES, redis).await.unwrap(), [Written::Set; 200]);
        let new: Vec<(UserId, RankedList)> = (0..200).map(|n| (user(n), list("new", 9 + n as u64 % 3))).collect();
        let written = set_lists(&new, replaces, TIMES, redis).await.unwrap();
        for (n, written) in written.into_iter().enumerate() {
            let kept = replaces == Replaces::NotNewer && n % 3 == 0;
            assert_eq!(written, if kept { Written::KeptNewer } else { Written::Set });
            let expected = if kept { &old[n].1 } else { &new[n].1 };
            assert_eq!(stored(redis, &user(n)).await, *expected.bytes());
        }
    }
    assert_eq!(set_lists(&[], Replaces::NotNewer, TIMES, redis).await.unwrap(), []);
}

/// A new Redis does not know the script.
#[tokio::test]
async fn lists_are_written_after_a_restart_of_redis() {
    let Some((mut stack, mut server, mut redis)) = start().await else { return };
    let redis = &mut redis;
    for round in 0..2 {
        if round > 0 {
            stack.kill(server.child, Signal::SIGKILL).unwrap();
            stack.stop_child(server.child).await.unwrap();
            let options = server::Options { port: Some(server.port), ..server::Options::default() };
            server = server::start(&mut stack, &options).await.unwrap();
            // The first command finds the broken connection.
            let connected = async {
                while redis.exists::<_, bool>("any").await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), connected).await.unwrap();
        }
        assert_eq!(set_list(&user(0), &list("a", 5), Replaces::NotNewer, TIMES, redis).await.unwrap(), Written::Set);
        let many: Vec<(UserId, RankedList)> = (0..3).map(|n| (user(n), list("b", 4))).collect();
        let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(redis).await.unwrap();
        let written = set_lists(&many, Replaces::NotNewer, TIMES, redis).await.unwrap();
        assert_eq!(written, [Written::KeptNewer, Written::Set, Written::Set]);
    }
}
