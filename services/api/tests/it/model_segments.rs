//! The model from segments (`model.source = segments`): answers before, during and after a switch are those of the fold.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use api::{ApiConfig, ModelSource, Profile};
use contract::{
    SegmentId,
    http::{ItemList, Recommendations, ScoredItem},
};
use lists::{ModelView, rank_history};
use model::PublishedSegment;
use prometheus::Registry;
use reqwest::StatusCode;
use runtime::telemetry::Span;
use stores::{LoggedEvent, Store, StoreMetrics};
use tokio_util::sync::CancellationToken;

use crate::{
    Fixture, Replica,
    segment_server::{Fault, Folded, SegmentServer},
    wait_until,
};

const LIMIT: usize = 20;

fn config(fixture: &Fixture, profile: Profile, workers: &[&SegmentServer]) -> ApiConfig {
    let mut config = fixture.config(profile);
    config.model.source = ModelSource::Segments;
    config.model.workers = workers.iter().map(|worker| worker.address.clone()).collect();
    config.model.poll_ms = 10;
    config
}

/// What each version answers.
#[derive(Default)]
struct Expected(BTreeMap<u64, ModelView>);

impl Expected {
    fn add(&mut self, segments: &[PublishedSegment]) -> u64 {
        let view = ModelView::of_segments(segments);
        let version = view.version;
        self.0.insert(version, view);
        version
    }

    fn check_popular(&self, list: &ItemList) {
        let view = &self.0[&list.model_version];
        assert_eq!(list.items, view.scored(view.neighbours.popular(), LIMIT), "version {}", list.model_version);
    }

    fn check_neighbours(&self, item: &str, list: &ItemList) {
        let view = &self.0[&list.model_version];
        let index = view.neighbours.index_of(item).unwrap();
        assert_eq!(list.items, view.scored(view.neighbours.neighbours(index), LIMIT), "version {}", list.model_version);
    }

    fn check_recommendations(&self, history: &[LoggedEvent], answer: &Recommendations) {
        let view = &self.0[&answer.model_version];
        let ranked = rank_history(view, history, LIMIT);
        let expected: Vec<ScoredItem> = match ranked {
            Some(ranked) => view.scored(&ranked, LIMIT),
            None => view.scored(view.neighbours.popular(), LIMIT),
        };
        // Lists have scores with five decimals.
        let is_same = |(a, b): (&ScoredItem, &ScoredItem)| a.item_id == b.item_id && (a.score - b.score).abs() < 6e-6;
        let same = answer.items.len() == expected.len() && answer.items.iter().zip(&expected).all(is_same);
        assert!(same, "version {}: {:?} instead of {expected:?}", answer.model_version, answer.items);
    }
}

/// An answer of each kind.
struct Seen {
    user: usize,
    item: String,
    popular: ItemList,
    neighbours: ItemList,
    recommendations: Recommendations,
}

async fn ask(http: &reqwest::Client, base: &str, fixture: &Folded, n: usize) -> Seen {
    let (user, item) = (n % fixture.data.users.len(), fixture.data.items[n % 50].as_str().to_owned());
    let get = async |path: String| {
        let answer = http.get(format!("{base}{path}")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer
    };
    let user_id = fixture.data.users[user].as_str();
    Seen {
        user,
        popular: get(format!("/popular?limit={LIMIT}")).await.json().await.unwrap(),
        neighbours: get(format!("/items/{item}/neighbours?limit={LIMIT}")).await.json().await.unwrap(),
        recommendations: get(format!("/recommendations?user_id={user_id}&limit={LIMIT}")).await.json().await.unwrap(),
        item,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_of_one_version_while_it_is_switched() {
    let Some(fixture) = Fixture::start().await else { return };
    let (server, mut folded) = (SegmentServer::start().await, Folded::of(fixture.dataset.clone()));
    folded.add_all_but(300);
    server.worker.publish_all(&folded.fold, 1);
    let mut segments: Vec<PublishedSegment> = folded.published().into_values().collect();
    let mut expected = Expected::default();
    let first = expected.add(&segments);
    let replica = Replica::start(config(&fixture, Profile::Baseline, &[&server])).await;
    assert_eq!(replica.metric("model_version").await, first as f64);
    folded.add(300);
    let newer = folded.published();
    let folded = Arc::new(folded);
    let stop = CancellationToken::new();
    let clients: Vec<_> = (0..2)
        .map(|client| {
            let (http, base, folded, stop) =
                (replica.http.clone(), replica.base.clone(), Arc::clone(&folded), stop.clone());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !stop.is_cancelled() {
                    seen.push(ask(&http, &base, &folded, client + 2 * seen.len()).await);
                }
                seen
            })
        })
        .collect();
    // One segment at a time, so that the versions between are known.
    for (segment, published) in newer {
        segments[segment.index()] = published.clone();
        let version = expected.add(&segments);
        server.worker.publish(&published, 1);
        wait_until("switched", async || replica.metric("model_version").await == version as f64).await;
    }
    let mut seen = vec![ask(&replica.http, &replica.base, &folded, 1).await];
    stop.cancel();
    for client in clients {
        seen.extend(client.await.unwrap());
    }
    let store = Store::new(fixture.store.clone(), &StoreMetrics::new(&Registry::new()).unwrap()).unwrap();
    let mut histories: BTreeMap<usize, Vec<LoggedEvent>> = BTreeMap::new();
    let mut versions = BTreeSet::new();
    for seen in &seen {
        if let Entry::Vacant(history) = histories.entry(seen.user) {
            history.insert(store.history(&folded.data.users[seen.user], None, &Span::NONE).await.unwrap());
        }
        expected.check_popular(&seen.popular);
        expected.check_neighbours(&seen.item, &seen.neighbours);
        expected.check_recommendations(&histories[&seen.user], &seen.recommendations);
        versions.insert(seen.popular.model_version);
    }
    assert_eq!(seen[0].popular.model_version, *expected.0.last_key_value().unwrap().0);
    assert!(versions.len() > 3, "{} answers of {} versions", seen.len(), versions.len());
    assert_eq!(replica.metric("model_switches_total").await, 16.0);
    assert_eq!(replica.metric("model_build_seconds_count").await, 17.0);
    assert!(replica.metric("model_fetch_bytes_total").await > 0.0);
    assert_eq!(replica.metric("model_fetch_failures_total").await, 0.0);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_ready_with_its_first_model_and_keeps_it_without_workers() {
    let Some(fixture) = Fixture::start().await else { return };
    let (server, mut folded) = (SegmentServer::start().await, Folded::of(fixture.dataset.clone()));
    folded.add_all_but(0);
    let published = folded.published();
    for (segment, published) in &published {
        if ![3, 7].contains(&segment.number()) {
            server.worker.publish(published, 1);
        }
    }
    // `protected`: the warm-up ranks with the model, too.
    let config = config(&fixture, Profile::Protected, &[&server]);
    let readyz = format!("http://{}/readyz", config.http.admin);
    let http = reqwest::Client::new();
    let publish_the_rest = async {
        wait_until("it says what it waits for", async || {
            let Ok(answer) = http.get(&readyz).send().await else { return false };
            answer.status() == StatusCode::SERVICE_UNAVAILABLE
                && answer.text().await.unwrap().contains("waiting for segments 3, 7 from the workers")
        })
        .await;
        for number in [3, 7] {
            server.worker.publish(&published[&SegmentId::new(number).unwrap()], 1);
        }
    };
    let (replica, ()) = tokio::join!(Replica::start(config), publish_the_rest);
    let mut expected = Expected::default();
    expected.add(&published.into_values().collect::<Vec<_>>());
    server.fault(Fault::Unavailable);
    let failed = async || replica.metric("model_fetch_failures_total{reason=\"unavailable\"}").await > 16.0;
    wait_until("the workers refuse", failed).await;
    let store = Store::new(fixture.store.clone(), &StoreMetrics::new(&Registry::new()).unwrap()).unwrap();
    for n in 0..20 {
        let seen = ask(&replica.http, &replica.base, &folded, n).await;
        let history = store.history(&folded.data.users[seen.user], None, &Span::NONE).await.unwrap();
        expected.check_popular(&seen.popular);
        expected.check_neighbours(&seen.item, &seen.neighbours);
        expected.check_recommendations(&history, &seen.recommendations);
    }
    assert!(replica.metric("model_segments_age_seconds").await > 0.0);
    assert_eq!(replica.metric("model_switches_total").await, 0.0);
    // It ends at once, although a worker does not answer.
    server.fault(Fault::Hangs);
    tokio::time::timeout(Duration::from_secs(30), replica.stop()).await.unwrap();
}
