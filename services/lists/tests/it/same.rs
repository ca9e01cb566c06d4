//! The raw log and the prepared features give the same list for every user.

use std::{collections::HashMap, fs::File, num::NonZero, path::PathBuf};

use contract::{Event, EventKind, ShardId, UserId, shard_of};
use launcher::{Stack, mariadb};
use lists::{ModelView, rank_history, rank_window};
use model::{BadRows, Dataset, Features, GenerateParams, NeighbourModel};
use prometheus::Registry;
use runtime::telemetry::Span;
use stores::{ArrivedEvent, EventBatch, FeaturesRow, ImportEvent, Store, StoreConfig, StoreMetrics};

const BATCH: usize = 500;
const WANTED: usize = 50;

/// `None`: no server here.
async fn start() -> Option<(Stack, Store)> {
    if !launcher::testing::have(&["mariadbd|mysqld"]) {
        return None;
    }
    let mut stack = Stack::create("test-lists").unwrap();
    let mysql = mariadb::start(&mut stack, "mysql", &mariadb::Options::default()).await.unwrap();
    let mut config = StoreConfig::spread_over(&[format!("127.0.0.1:{}", mysql.port)]);
    config.pool_size = 4;
    config.statement_timeout_ms = 60_000;
    stores::migrate(&config).await.unwrap();
    Some((stack, Store::new(config, &StoreMetrics::new(&Registry::new()).unwrap()).unwrap()))
}

/// In order of time, as they would arrive.
fn events_of(data: &Dataset) -> Vec<Event> {
    let event = |event: &model::Interaction| Event {
        user_id: data.users[event.user as usize].clone(),
        item_id: data.items[event.item as usize].clone(),
        kind: event.kind,
        at_ms: event.at_ms,
        weight: event.weight,
    };
    let mut events: Vec<Event> = data.events.iter().map(event).collect();
    events.sort_by(|a, b| (a.at_ms, &a.item_id, a.kind).cmp(&(b.at_ms, &b.item_id, b.kind)));
    events
}

async fn import(store: &Store, events: &[Event]) {
    let rows = events.iter().map(|event| ImportEvent {
        user_id: &event.user_id,
        item_id: &event.item_id,
        kind: event.kind,
        at_ms: event.at_ms,
        weight: event.weight,
    });
    store.import(rows.collect(), |_| ()).await.unwrap();
}

async fn load_model(store: &Store, data: &Dataset) -> ModelView {
    let built = NeighbourModel::build(data, NonZero::<usize>::MIN);
    let (header, rows) = built.to_rows();
    store.save_model(&header, &rows.collect::<Vec<_>>(), 0).await.unwrap();
    ModelView::load(store).await.unwrap()
}

/// Folds the events of each shard in their order, as a worker does: users without features begin with their history.
async fn fold(store: &Store, events: &[Event]) {
    for shard in ShardId::all() {
        let of_shard: Vec<&Event> = events.iter().filter(|event| shard_of(event.user_id.as_str()) == shard).collect();
        for batch in of_shard.chunks(BATCH) {
            fold_batch(store, shard, batch).await;
        }
    }
}

async fn fold_batch(store: &Store, shard: ShardId, batch: &[&Event]) {
    let position = store.event_position(shard).await.unwrap();
    let mut users: Vec<UserId> = batch.iter().map(|event| event.user_id.clone()).collect();
    users.sort_unstable();
    users.dedup();
    let stored = store.features_of(shard, &users, stores::Turn::default()).await.unwrap();
    let without: Vec<UserId> = users.iter().filter(|user_id| !stored.contains_key(*user_id)).cloned().collect();
    let histories = store.whole_histories(shard, &without).await.unwrap();
    let mut folded: HashMap<&UserId, (Features, u64, u32)> = HashMap::new();
    for user_id in &users {
        let mut features = Features::default();
        match stored.get(user_id) {
            Some(stored) => features = Features::decode(&stored.bytes).unwrap(),
            None => histories.get(user_id).into_iter().flatten().for_each(|event| {
                features.fold(&event.item_id, event.kind, event.at_ms, event.weight);
            }),
        }
        folded.insert(user_id, (features, 0, 0));
    }
    assert!(store.logged(shard, batch).await.unwrap().is_empty(), "no event was written before");
    let mut arrived = Vec::new();
    for (arrival, event) in (position.arrival_base + position.next_offset..).zip(batch) {
        let (features, last, added) = folded.get_mut(&event.user_id).unwrap();
        features.fold(&event.item_id, event.kind, event.at_ms, event.weight);
        (*last, *added) = (arrival, *added + 1);
        arrived.push(ArrivedEvent { event: (*event).clone(), arrival });
    }
    let rows = folded.into_iter().map(|(user_id, (features, arrival, added))| FeaturesRow {
        user_id: user_id.clone(),
        arrival,
        bytes: features.encode().to_vec(),
        added,
        continues: stored.contains_key(user_id),
    });
    let (from_offset, next_offset) = (position.next_offset, position.next_offset + batch.len() as u64);
    let arrival_base = position.arrival_base;
    let batch = EventBatch { from_offset, next_offset, arrival_base, events: arrived, users: rows.collect() };
    store.write_batch(shard, &batch, 0, 1, 1).await.unwrap().unwrap();
}

/// Compares both lists of every user that has features, and returns the number of users whose window is full.
async fn compare(store: &Store, model: &ModelView, users: &[UserId]) -> usize {
    let mut full = 0;
    for user_id in users {
        let history = store.history(user_id, None, &Span::NONE).await.unwrap();
        let stored = store.features(user_id, None, &Span::NONE).await.unwrap().unwrap();
        let features = Features::decode(&stored.bytes).unwrap();
        let inline = rank_history(model, &history, WANTED);
        let prepared = rank_window(model, &features, WANTED);
        assert_eq!(inline, prepared, "{user_id}: {} events", history.len());
        let encode = |ranked: Option<Vec<(u32, f32)>>| model.encode(&ranked.unwrap_or_default(), WANTED, 0, 0);
        assert_eq!(encode(inline), encode(prepared));
        full += usize::from(features.window().len() == Features::MAX_ITEMS);
        assert!(history.len() == 1_000 || features.events() == history.len() as u64, "{user_id}");
    }
    full
}

/// Half of the data is imported, the other half comes through Kafka.
async fn both_halves(data: &Dataset) -> Option<usize> {
    let (_stack, store) = start().await?;
    let events = events_of(data);
    let (imported, arriving) = events.split_at(events.len() / 2);
    import(&store, imported).await;
    fold(&store, arriving).await;
    let model = load_model(&store, data).await;
    let mut users: Vec<UserId> = arriving.iter().map(|event| event.user_id.clone()).collect();
    users.sort_unstable();
    users.dedup();
    Some(compare(&store, &model, &users).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_every_user_of_the_generator() {
    let params = GenerateParams { users: 600, items: 400, clusters: 10, ..GenerateParams::default() };
    both_halves(&model::generate(&params).unwrap()).await;
}

/// MovieLens 100K, whose licence does not allow it in the repository.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_every_user_of_movielens() {
    let path = std::env::var_os("TESTBED_ML100K").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/ml-100k.inter"),
        PathBuf::from,
    );
    let Ok(file) = File::open(&path) else {
        launcher::testing::skip(&format!(
            "lists of ml-100k: {} is not there (TESTBED_ML100K names another)",
            path.display()
        ));
        return;
    };
    let (data, _) = model::parse(file, BadRows::Refuse).unwrap();
    if let Some(full) = both_halves(&data).await {
        assert!(full > 200, "only {full} users have more than 100 items");
    }
}

/// Users who return to some of many items: windows overflow, and items repeat with other weights. Weights have no short decimal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_users_with_repeated_items_and_full_windows() {
    let Some((_stack, store)) = start().await else { return };
    let data = model::generate(&GenerateParams { users: 200, items: 400, clusters: 10, ..GenerateParams::default() });
    let data = data.unwrap();
    let model = load_model(&store, &data).await;
    let user = |n: i64| UserId::new(&format!("collector {n}")).unwrap();
    let event = |n: i64, k: i64| Event {
        user_id: user(n),
        item_id: data.items[(k * 31 % (60 + 30 * n) + k / 200) as usize % data.items.len()].clone(),
        kind: EventKind::from_code((k % 4) as u8).unwrap(),
        // Ties of three events.
        at_ms: k / 3,
        weight: 1.0 + (k * 37 % 11) as f32 / 7.0,
    };
    let mut events: Vec<Event> = Vec::new();
    for n in 0..12 {
        let mut of_user: Vec<Event> = (0..60 + 75 * n).map(|k| event(n, k)).collect();
        // An action is logged once.
        of_user.sort_by(|a, b| (a.at_ms, &a.item_id, a.kind).cmp(&(b.at_ms, &b.item_id, b.kind)));
        of_user.dedup_by(|a, b| (a.at_ms, &a.item_id, a.kind) == (b.at_ms, &b.item_id, b.kind));
        events.extend(of_user);
    }
    fold(&store, &events).await;
    let users: Vec<UserId> = (0..12).map(user).collect();
    let full = compare(&store, &model, &users).await;
    assert!((4..12).contains(&full), "{full} windows are full");
}
