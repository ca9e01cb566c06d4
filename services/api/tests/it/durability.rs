use std::time::Duration;

use api::Profile;
use launcher::{Signal, mariadb};
use prometheus::Registry;
use reqwest::StatusCode;
use runtime::telemetry::Span;
use stores::{Store, StoreMetrics};

use crate::Fixture;

/// A write that was acknowledged (201, 202, a fence) survives a kill of the server right after it. Repeated, because the server may happen to
/// flush its log in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_that_the_store_is_killed() {
    let Some(mut fixture) = Fixture::start().await else { return };
    let store =
        |fixture: &Fixture| Store::new(fixture.store.clone(), &StoreMetrics::new(&Registry::new()).unwrap()).unwrap();
    let item = fixture.seen(1)[0].to_owned();
    let fenced = contract::shard_of("any");
    for round in 1..=2_u64 {
        for write in ["user", "event", "fence"] {
            let id = format!("{write}-{round}");
            let replica = fixture.replica(Profile::Baseline).await;
            match write {
                "user" => {
                    let answer = replica.post("/users", &format!(r#"{{"user_id":"{id}"}}"#)).await;
                    assert_eq!(answer.status(), StatusCode::CREATED);
                }
                "event" => {
                    let event = format!(r#"{{"user_id":"{id}","item_id":"{item}","event":"purchase"}}"#);
                    assert_eq!(replica.post("/events", &event).await.status(), StatusCode::ACCEPTED);
                }
                _ => store(&fixture).fence(fenced, round, 7, Duration::from_secs(60)).await.unwrap().unwrap(),
            }
            fixture.stack.kill(fixture.mysql.child, Signal::SIGKILL).unwrap();
            fixture.stack.stop_child(fixture.mysql.child).await.unwrap();
            let options = mariadb::Options { port: Some(fixture.mysql.port), ..mariadb::Options::default() };
            fixture.mysql = mariadb::start(&mut fixture.stack, "mysql", &options).await.unwrap();

            let store = store(&fixture);
            let user = id.parse().unwrap();
            match write {
                "user" => assert!(!store.create_user(&user, 0, &Span::NONE).await.unwrap(), "{id} is gone"),
                "event" => {
                    assert_eq!(store.history(&user, None, &Span::NONE).await.unwrap().len(), 1, "{id} is gone");
                }
                _ => assert_eq!(store.ownership(fenced).await.unwrap().epoch, round, "{id} is gone"),
            }
        }
    }
}
