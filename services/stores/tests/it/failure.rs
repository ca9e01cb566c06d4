use std::time::Duration;

use contract::UserId;
use futures::FutureExt;
use prometheus::Registry;
use runtime::telemetry::Span;
use sqlx::{Executor, MySqlConnection, Row};
use stores::{QueueOrder, Store, StoreConfig, StoreError, StoreMetrics};
use tokio::time::Instant;

use crate::Servers;

fn user(n: usize) -> UserId {
    UserId::new(&format!("u{n}")).unwrap()
}

/// After the first use of a connection, a read is one command. The server counts them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_read_is_one_command() {
    let Some(mut servers) = Servers::start(1).await else { return };
    servers.config.pool_size = 1;
    let store = servers.store();
    // Opens the connection.
    for n in 0..200 {
        store.history(&user(n), None, &Span::NONE).await.unwrap();
    }
    let work = async {
        for n in 0..200 {
            store.history(&user(n), None, &Span::NONE).await.unwrap();
        }
    };
    assert_eq!(servers.commands(work).await, 200);
    assert_eq!(servers.count("store_connects_total"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_pool_and_a_dead_server_have_different_errors() {
    let Some(mut servers) = Servers::start(1).await else { return };
    servers.config.pool_size = 1;
    servers.config.checkout_timeout_ms = 100;
    let store = servers.store();
    store.history(&user(1), None, &Span::NONE).await.unwrap();
    servers.lock_tables().await;
    let held = tokio::spawn({
        let store = store.clone();
        async move { store.history(&user(2), None, &Span::NONE).await }
    });
    wait_until(|| servers.gauge("db_client_connection_count", "used") == 1.0).await;
    let error = store.history(&user(3), None, &Span::NONE).await.unwrap_err();
    assert!(matches!(error, StoreError::CheckoutTimeout(waited) if waited == Duration::from_millis(100)), "{error:?}");
    servers.unlock_tables().await;
    held.await.unwrap().unwrap();

    servers.kill_first().await;
    let error = store.history(&user(4), None, &Span::NONE).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
}

/// Idle connections do not survive a restart of the server. The next read notices it, reconnects and succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_survive_a_restart_of_the_server() {
    let Some(mut servers) = Servers::start(1).await else { return };
    let store = servers.store();
    store.open(4, Duration::from_secs(10)).await.unwrap();
    store.create_user(&user(1), 0, &Span::NONE).await.unwrap();
    servers.kill_first().await;
    servers.restart_first().await;
    for n in 0..20 {
        store.history(&user(n), None, &Span::NONE).await.unwrap();
    }
    assert!(servers.count("store_retries_total") >= 1);
}

/// Waiters that are cancelled repeatedly cause no connection to be opened or closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_waiters_close_no_connection() {
    for order in [QueueOrder::Newest, QueueOrder::Oldest] {
        let Some(mut servers) = Servers::start(1).await else { return };
        servers.config.pool_size = 2;
        servers.config.order = order;
        let store = servers.store();
        store.open(2, Duration::from_secs(10)).await.unwrap();
        assert_eq!(servers.gauge("db_client_connection_count", "idle"), 2.0);
        servers.lock_tables().await;
        let held: Vec<_> = (0..2)
            .map(|n| {
                tokio::spawn({
                    let store = store.clone();
                    async move { store.history(&user(n), None, &Span::NONE).await }
                })
            })
            .collect();
        wait_until(|| servers.gauge("db_client_connection_count", "used") == 2.0).await;
        for _ in 0..5 {
            let waiters: Vec<_> = (0..300)
                .map(|n| {
                    tokio::spawn({
                        let store = store.clone();
                        async move { store.history(&user(n), None, &Span::NONE).await }
                    })
                })
                .collect();
            wait_until(|| servers.gauge("db_client_connection_pending_requests", "") == 300.0).await;
            for waiter in &waiters {
                waiter.abort();
            }
            wait_until(|| servers.gauge("db_client_connection_pending_requests", "") == 0.0).await;
        }
        servers.unlock_tables().await;
        for query in held {
            query.await.unwrap().unwrap();
        }
        store.history(&user(5), None, &Span::NONE).await.unwrap();
        assert_eq!(servers.count("store_connects_total"), 2, "{order:?}");
        // No connection is missing.
        let connections = |state: &str| servers.gauge("db_client_connection_count", state);
        assert_eq!((connections("idle"), connections("used")), (2.0, 0.0));
    }
}

/// If a caller is cancelled while its query runs, the connection returns to the pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_caller_closes_no_connection() {
    let Some(mut servers) = Servers::start(1).await else { return };
    servers.config.pool_size = 1;
    let store = servers.store();
    store.open(1, Duration::from_secs(10)).await.unwrap();
    servers.lock_tables().await;
    let query = tokio::spawn({
        let store = store.clone();
        async move { store.history(&user(1), None, &Span::NONE).await }
    });
    wait_until(|| servers.gauge("db_client_connection_count", "used") == 1.0).await;
    query.abort();
    assert!(query.await.unwrap_err().is_cancelled());
    assert!(store.history(&user(2), None, &Span::NONE).now_or_never().is_none(), "the connection is still busy");
    servers.unlock_tables().await;
    store.history(&user(2), None, &Span::NONE).await.unwrap();
    assert_eq!(servers.count("store_connects_total"), 1);
}

/// Dropping a query's future does not stop the query. The server aborts it at the request's deadline, and the connection
/// stays usable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_gives_up_a_query_that_has_no_time_left() {
    let Some(mut servers) = Servers::start(1).await else { return };
    servers.config.pool_size = 1;
    let store = servers.store();
    store.open(1, Duration::from_secs(10)).await.unwrap();
    servers.lock_tables().await;
    let deadline = Instant::now() + Duration::from_millis(200);
    let error = store.history(&user(1), Some(deadline), &Span::NONE).await.unwrap_err();
    assert!(matches!(error, StoreError::StatementTimeout), "{error:?}");
    servers.unlock_tables().await;
    store.history(&user(1), None, &Span::NONE).await.unwrap();
    assert_eq!(servers.count("store_connects_total"), 1);
    // Without a deadline, or with a distant one, the session's statement timeout applies.
    servers.config.statement_timeout_ms = 100;
    let metrics = StoreMetrics::new(&Registry::new()).unwrap();
    let store = Store::new(servers.config.clone(), &metrics).unwrap();
    store.open(1, Duration::from_secs(10)).await.unwrap();
    servers.lock_tables().await;
    for deadline in [None, Some(Instant::now() + Duration::from_secs(60))] {
        let error = store.history(&user(1), deadline, &Span::NONE).await.unwrap_err();
        assert!(matches!(error, StoreError::StatementTimeout), "{error:?}");
    }
    servers.unlock_tables().await;
}

/// 5,000 requests time out repeatedly while all connections are busy, in the queue or during their query. The
/// server sees no connection open or close (compare launchbadge/sqlx issue 3132).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_past_their_deadline_open_no_connections() {
    const WAITERS: usize = 5_000;
    for order in [QueueOrder::Newest, QueueOrder::Oldest] {
        let Some(mut servers) = Servers::start(1).await else { return };
        servers.config.pool_size = 4;
        servers.config.max_waiting = WAITERS;
        servers.config.order = order;
        let store = servers.store();
        store.open(4, Duration::from_secs(10)).await.unwrap();
        servers.lock_tables().await;
        let mut observer = servers.connect().await;
        let before = connections(&mut observer).await;
        let started = Instant::now();
        for _ in 0..4 {
            let deadline = Instant::now() + Duration::from_millis(300);
            let waiters: Vec<_> = (0..WAITERS)
                .map(|n| {
                    let store = store.clone();
                    tokio::spawn(async move {
                        let user = user(n);
                        let history = store.history(&user, Some(deadline), &Span::NONE).map(drop);
                        // Every second client disconnects earlier.
                        if n % 2 == 0 {
                            history.await;
                        } else {
                            let _ = tokio::time::timeout_at(deadline - Duration::from_millis(50), history).await;
                        }
                    })
                })
                .collect();
            for waiter in waiters {
                waiter.await.unwrap();
            }
        }
        let opened = connections(&mut observer).await - before;
        assert!(opened <= started.elapsed().as_secs(), "{opened} connections opened, {order:?}");
        assert!(servers.labelled("store_errors_total", "checkout_timeout") > 0);
        assert!(servers.labelled("store_errors_total", "statement_timeout") > 0);
        servers.unlock_tables().await;
        store.history(&user(5), None, &Span::NONE).await.unwrap();
    }
}

async fn connections(observer: &mut MySqlConnection) -> u64 {
    let status = observer.fetch_one("SHOW GLOBAL STATUS LIKE 'Connections'").await.unwrap();
    status.get_unchecked::<String, _>(1).parse().unwrap()
}

/// While the server is down, one caller per 250 ms tries and the others fail at once. When it is back, all calls succeed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_is_not_tried_by_everybody() {
    let Some(mut servers) = Servers::start(1).await else { return };
    let store = servers.store();
    store.open(4, Duration::from_secs(10)).await.unwrap();
    servers.kill_first().await;
    let (before, started) = (servers.count("store_connects_total"), Instant::now());
    for n in 0..2_000 {
        let error = store.history(&user(n), None, &Span::NONE).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_) | StoreError::Down), "{error:?}");
    }
    let tried = servers.count("store_connects_total") - before;
    let allowed = 1 + started.elapsed().as_millis() as u64 / 250;
    assert!(tried <= allowed, "{tried} attempts, {allowed} allowed");
    assert_eq!(servers.labelled("store_errors_total", "down") + tried, 2_000);

    servers.restart_first().await;
    let answered = async || store.history(&user(1), None, &Span::NONE).await.is_ok();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !answered().await {
        assert!(Instant::now() < deadline, "not back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let all = futures::future::join_all((0..100).map(|n| {
        let store = store.clone();
        async move { store.history(&user(n), None, &Span::NONE).await.map(drop) }
    }));
    assert!(all.await.iter().all(Result::is_ok));
}

async fn wait_until(condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "the condition did not come true within 20 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A permanent error: it is not reported as unavailable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_cannot_be_used_is_no_outage() {
    let mut config = StoreConfig::spread_over(&["127.0.0.1:1".to_owned()]);
    config.pool_size = 0;
    let error = Store::new(config, &StoreMetrics::new(&Registry::new()).unwrap()).unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error:?}");
    assert_eq!(error.kind(), "invalid");
}
