use contract::ShardId;
use stores::{Ownership, StaleEpoch};

use crate::Servers;

#[tokio::test]
async fn a_fence_shuts_out_every_earlier_epoch_of_its_shard_and_no_other() {
    let Some(servers) = Servers::start(1).await else { return };
    let store = servers.store();
    let [shard, other] = [3, 4].map(|n| ShardId::all().nth(n).unwrap());
    assert_eq!(store.ownership(shard).await.unwrap(), Ownership { epoch: 0, counter: 0 });
    assert_eq!(store.fence(shard, 5).await.unwrap(), Ok(()));
    assert_eq!(store.fence(shard, 5).await.unwrap(), Ok(()), "twice is once");
    assert_eq!(store.count(shard, 5).await.unwrap(), Ok(1));
    assert_eq!(store.count(shard, 5).await.unwrap(), Ok(2));
    assert_eq!(store.count(shard, 4).await.unwrap(), Err(StaleEpoch { current: 5 }));
    assert_eq!(store.fence(shard, 4).await.unwrap(), Err(StaleEpoch { current: 5 }));
    // A later owner whose fence is not set yet.
    assert_eq!(store.count(shard, 6).await.unwrap(), Ok(3));
    assert_eq!(store.count(shard, 5).await.unwrap(), Err(StaleEpoch { current: 6 }));
    assert_eq!(store.ownership(shard).await.unwrap(), Ownership { epoch: 6, counter: 3 });
    assert_eq!(store.count(other, 1).await.unwrap(), Ok(1));
}

#[tokio::test]
async fn writers_of_two_epochs_at_once_never_interleave() {
    let Some(servers) = Servers::start(1).await else { return };
    let (store, shard) = (servers.store(), ShardId::all().next().unwrap());
    let write = |epoch: u64| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut counted = Vec::new();
            for _ in 0..50 {
                counted.extend(store.count(shard, epoch).await.unwrap().ok());
            }
            counted
        })
    };
    let (old, new) = (write(1), write(2));
    let (old, new) = (old.await.unwrap(), new.await.unwrap());
    assert_eq!(new.len(), 50, "the later epoch is never refused");
    assert!(old.iter().max() < new.iter().min(), "nothing of the earlier one after the later one: {old:?} {new:?}");
    let counter = (old.len() + new.len()) as u64;
    assert_eq!(store.ownership(shard).await.unwrap(), Ownership { epoch: 2, counter });
}
