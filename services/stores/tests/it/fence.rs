use std::time::Duration;

use contract::ShardId;
use sqlx::{AssertSqlSafe, Executor};
use stores::{MAX_EPOCH_JUMP, Ownership, Refused, Store, StoreError};

use crate::Servers;

/// Of a fence that is not expected to exceed it.
const LIMIT: Duration = Duration::from_secs(60);
/// Processes.
const ANY: u64 = 7;
const OTHER: u64 = u64::MAX;

fn shard(n: usize) -> ShardId {
    ShardId::all().nth(n).unwrap()
}

async fn fence(store: &Store, shard: ShardId, epoch: u64, owner: u64) -> Result<(), Refused> {
    let set = store.fence(shard, epoch, owner, LIMIT).await.unwrap();
    assert_eq!(store.verify(shard, epoch, owner, LIMIT).await.unwrap(), set);
    set
}

#[tokio::test]
async fn a_fence_shuts_out_every_earlier_epoch_of_its_shard_and_no_other() {
    let Some(servers) = Servers::start(1).await else { return };
    let store = servers.store();
    let [shard, other] = [3, 4].map(shard);
    assert_eq!(store.ownership(shard).await.unwrap(), Ownership { epoch: 0, owner: 0, counter: 0 });
    assert_eq!(fence(&store, shard, 5, ANY).await, Ok(()));
    assert_eq!(fence(&store, shard, 5, ANY).await, Ok(()), "twice is once");
    assert_eq!(store.count(shard, 5, ANY).await.unwrap(), Ok(1));
    assert_eq!(store.count(shard, 5, ANY).await.unwrap(), Ok(2));
    assert_eq!(store.count(shard, 4, ANY).await.unwrap(), Err(Refused::LaterEpoch { current: 5 }));
    assert_eq!(fence(&store, shard, 4, ANY).await, Err(Refused::LaterEpoch { current: 5 }));
    // A later owner whose fence is not set yet.
    assert_eq!(store.count(shard, 6, OTHER).await.unwrap(), Ok(3));
    assert_eq!(store.count(shard, 5, ANY).await.unwrap(), Err(Refused::LaterEpoch { current: 6 }));
    assert_eq!(store.ownership(shard).await.unwrap(), Ownership { epoch: 6, owner: OTHER, counter: 3 });
    assert_eq!(store.count(other, 1, ANY).await.unwrap(), Ok(1));
}

#[tokio::test]
async fn of_two_processes_with_the_same_epoch_only_the_first_writes() {
    let Some(servers) = Servers::start(1).await else { return };
    let (store, shard) = (servers.store(), shard(0));
    assert_eq!(fence(&store, shard, 5, ANY).await, Ok(()));
    let refused = Refused::OtherOwner { epoch: 5, owner: ANY };
    assert_eq!(fence(&store, shard, 5, OTHER).await, Err(refused));
    assert_eq!(store.count(shard, 5, OTHER).await.unwrap(), Err(refused));
    assert_eq!(refused.overruled_by(), Some(5));
    assert_eq!(store.count(shard, 5, ANY).await.unwrap(), Ok(1));
    assert_eq!(fence(&store, shard, 6, OTHER).await, Ok(()), "a later epoch has another owner");
    assert_eq!(store.count(shard, 5, ANY).await.unwrap(), Err(Refused::LaterEpoch { current: 6 }));
    assert_eq!(store.ownership(shard).await.unwrap(), Ownership { epoch: 6, owner: OTHER, counter: 1 });
}

#[tokio::test]
async fn no_process_can_use_up_the_epochs() {
    let Some(servers) = Servers::start(1).await else { return };
    let (store, shard) = (servers.store(), shard(0));
    assert_eq!(fence(&store, shard, u64::MAX, OTHER).await, Err(Refused::EpochJump { current: 0 }));
    assert_eq!(store.count(shard, u64::MAX, OTHER).await.unwrap(), Err(Refused::EpochJump { current: 0 }));
    assert_eq!(fence(&store, shard, MAX_EPOCH_JUMP + 1, OTHER).await, Err(Refused::EpochJump { current: 0 }));
    assert_eq!(fence(&store, shard, MAX_EPOCH_JUMP, OTHER).await, Ok(()));
    assert_eq!(fence(&store, shard, MAX_EPOCH_JUMP + 1, ANY).await, Ok(()), "a later table goes on");
}

/// Requests for one shard hang and occupy all connections of the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_passes_requests_and_fences_of_another_shard_that_hang() {
    let Some(mut servers) = Servers::start(1).await else { return };
    (servers.config.pool_size, servers.config.checkout_timeout_ms) = (2, 300);
    servers.config.statement_timeout_ms = 600_000;
    let (store, [hung, other]) = (servers.store(), [3, 4].map(shard));
    let mut locker = servers.connect().await;
    let lock = format!("SELECT * FROM {}.ownership FOR UPDATE", hung.schema());
    locker.execute("BEGIN").await.unwrap();
    locker.execute(sqlx::raw_sql(AssertSqlSafe(lock))).await.unwrap();
    let count = |shard| {
        let store = store.clone();
        tokio::spawn(async move { store.count(shard, 1, ANY).await })
    };
    let counts = [(); 2].map(|()| count(hung));
    while servers.gauge("db_client_connection_count", "used") < 2.0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(count(other).await.unwrap(), Err(StoreError::CheckoutTimeout(_))), "all connections are in use");
    // More fences of the hung shard than connections: each ends at its limit and frees its connection.
    for _ in 0..20 {
        let error = store.fence(hung, 2, OTHER, Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
    assert_eq!(store.fence(other, 2, OTHER, LIMIT).await.unwrap(), Ok(()));
    locker.execute("COMMIT").await.unwrap();
    for count in counts {
        // The server may still have a fence of a closed connection in its queue.
        let counted = count.await.unwrap().unwrap();
        assert!(counted.is_ok() || counted == Err(Refused::LaterEpoch { current: 2 }), "{counted:?}");
    }
    assert_eq!(store.fence(hung, 2, OTHER, LIMIT).await.unwrap(), Ok(()));
    assert_eq!(store.count(other, 2, OTHER).await.unwrap(), Ok(1));
}

#[tokio::test]
async fn writers_of_two_epochs_at_once_never_interleave() {
    let Some(servers) = Servers::start(1).await else { return };
    let (store, shard) = (servers.store(), shard(0));
    let write = |epoch: u64| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut counted = Vec::new();
            for _ in 0..50 {
                counted.extend(store.count(shard, epoch, ANY).await.unwrap().ok());
            }
            counted
        })
    };
    let (old, new) = (write(1), write(2));
    let (old, new) = (old.await.unwrap(), new.await.unwrap());
    assert_eq!(new.len(), 50, "the later epoch is never refused");
    assert!(old.iter().max() < new.iter().min(), "nothing of the earlier one after the later one: {old:?} {new:?}");
    let counter = (old.len() + new.len()) as u64;
    assert_eq!(store.ownership(shard).await.unwrap(), Ownership { epoch: 2, owner: ANY, counter });
}
