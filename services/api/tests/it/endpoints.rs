use std::collections::HashSet;

use api::Profile;
use contract::http::{EventsAccepted, ItemList, Source, UserCreated, problem as kinds};
use reqwest::StatusCode;

use crate::{Fixture, problem, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miss_is_computed_then_cached_and_seen_items_stay_out() {
    let Some(fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Baseline).await;
    for n in [0, 7, 123, 399] {
        let user = fixture.user(n);
        let first = replica.recommend(user, 20).await;
        assert_eq!((first.source, first.items.len()), (Source::Store, 20), "{user}");
        let seen: HashSet<&str> = fixture.seen(n).into_iter().collect();
        assert!(first.items.iter().all(|item| !seen.contains(item.item_id.as_str())));
        assert!(first.items.is_sorted_by(|a, b| a.score >= b.score));
        wait_until("the fill arrives", async || replica.recommend(user, 20).await.source == Source::Cache).await;
        let hit = replica.recommend(user, 20).await;
        assert_eq!((hit.items, hit.model_version), (first.items.clone(), first.model_version));
        // A shorter list is a prefix; a longer one is not cached and is computed.
        assert_eq!(replica.recommend(user, 3).await.items, first.items[..3]);
        let longer = replica.recommend(user, 60).await;
        assert_eq!((longer.source, &longer.items[..20]), (Source::Store, &first.items[..]));
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_cold_users_get_what_is_popular() {
    let Some(fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Baseline).await;
    let popular: ItemList = replica.get("/popular?limit=5").await.json().await.unwrap();
    assert_eq!(popular.items.len(), 5);
    let created = replica.post("/users", r#"{"user_id":"cold"}"#).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    for user in ["nobody", "cold", "nobody"] {
        let answer = replica.recommend(user, 5).await;
        let (got, expected): (Vec<_>, Vec<_>) =
            (answer.items.iter().map(|i| &i.item_id).collect(), popular.items.iter().map(|i| &i.item_id).collect());
        assert_eq!((answer.source, got), (Source::Popular, expected));
    }
    // Unknown ids are never cached in Redis.
    assert_eq!(replica.metric("cache_fills_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_events_are_written_once_and_change_the_answer() {
    let Some(fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Baseline).await;
    let created: UserCreated = replica.post("/users", r#"{"user_id":"new user"}"#).await.json().await.unwrap();
    assert!(created.created);
    let again = replica.post("/users", r#"{"user_id":"new user"}"#).await;
    assert_eq!(again.status(), StatusCode::OK);

    let item = fixture.seen(5)[0];
    let event = format!(r#"{{"user_id":"new user","item_id":"{item}","event":"purchase","timestamp":1750000000.25}}"#);
    for body in [event.clone(), format!("[{event},{event}]")] {
        let answer = replica.post("/events", &body).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        assert!(answer.json::<EventsAccepted>().await.unwrap().accepted >= 1);
    }
    let answer = replica.recommend("new+user", 10).await;
    assert_eq!(answer.source, Source::Store);
    let neighbours: ItemList = replica.get(&format!("/items/{item}/neighbours?limit=3")).await.json().await.unwrap();
    assert_eq!(answer.items[0].item_id, neighbours.items[0].item_id, "one event: the item's first neighbour leads");
    // New behaviour deletes the cached list.
    wait_until("the list is cached", async || replica.recommend("new+user", 10).await.source == Source::Cache).await;
    let other = &neighbours.items[0].item_id;
    replica.post("/events", &format!(r#"{{"user_id":"new user","item_id":"{other}","event":"view"}}"#)).await;
    let changed = replica.recommend("new+user", 10).await;
    assert_eq!(changed.source, Source::Store);
    assert!(changed.items.iter().all(|i| i.item_id != *other));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_answered_with_the_field_at_fault() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Baseline);
    config.http.max_body_bytes = 300_000;
    let replica = crate::Replica::start(config).await;
    let long = "x".repeat(65);
    for (path, field) in [
        ("/recommendations", "user_id"),
        ("/recommendations?user_id=", "user_id"),
        (&format!("/recommendations?user_id={long}"), "user_id"),
        ("/recommendations?user_id=%FF", "user_id"),
        ("/recommendations?user_id=a&limit=0", "limit"),
        ("/recommendations?user_id=a&limit=1e2", "limit"),
        ("/recommendations?user_id=a&limit=+1", "limit"),
        ("/recommendations?user_id=a&Limit=1", "Limit"),
        ("/popular?limit=101", "limit"),
        ("/items/%00/neighbours", "id"),
    ] {
        let (status, problem) = problem(replica.get(path).await).await;
        assert_eq!((status, problem.kind.as_str()), (StatusCode::BAD_REQUEST, kinds::INVALID_REQUEST), "{path}");
        assert_eq!(problem.field.as_deref(), Some(field), "{path}");
    }
    let event = r#"{"user_id":"a","item_id":"b","event":"view"}"#;
    for (path, body, field) in [
        ("/users", "", "body"),
        ("/users", "{", "body"),
        ("/users", r#"{"user_id":""}"#, "user_id"),
        ("/users", r#"{"user_id":"a","admin":true}"#, "body"),
        ("/events", "[]", "events"),
        ("/events", r#"{"user_id":"a","item_id":"b","event":"like"}"#, "body"),
        ("/events", r#"{"user_id":"a","item_id":"b","event":"view","weight":0}"#, "weight"),
        ("/events", r#"{"user_id":"a","item_id":"b","event":"view","weight":1e999}"#, "body"),
        ("/events", r#"{"user_id":"a","item_id":"b","event":"view","timestamp":1750000000000}"#, "timestamp"),
        ("/events", &format!(r#"[{event},{{"user_id":"a","item_id":"","event":"view"}}]"#), "events[1].item_id"),
    ] {
        let (status, problem) = problem(replica.post(path, body).await).await;
        assert_eq!((status, problem.field.as_deref()), (StatusCode::BAD_REQUEST, Some(field)), "{path} {body}");
    }
    // All or nothing: the good event of the refused batch was not written.
    assert_eq!(replica.recommend("a", 1).await.source, Source::Popular);

    let no_type = replica.http.post(format!("{}/users", replica.base)).body(r#"{"user_id":"a"}"#).send().await.unwrap();
    let (status, no_type) = problem(no_type).await;
    assert_eq!((status, no_type.kind.as_str()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, kinds::UNSUPPORTED_MEDIA_TYPE));
    assert_eq!(no_type.field.as_deref(), Some("content-type"));
    let many = format!("[{}]", vec![event; 1001].join(","));
    let too_long = format!("{{\"user_id\":\"{}\"}}", "x".repeat(300_001));
    for body in [many, too_long] {
        let (status, problem) = problem(replica.post("/events", &body).await).await;
        assert_eq!((status, problem.kind.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, kinds::TOO_LARGE));
    }
    for path in ["/nothing", "/items/unheard-of/neighbours"] {
        assert_eq!(problem(replica.get(path).await).await.0, StatusCode::NOT_FOUND);
    }
    let (status, problem) = problem(replica.post("/recommendations?user_id=a", "").await).await;
    assert_eq!((status, problem.kind.as_str()), (StatusCode::METHOD_NOT_ALLOWED, kinds::METHOD_NOT_ALLOWED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_describes_itself() {
    let Some(fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Baseline).await;
    let document: serde_json::Value = replica.get("/openapi.json").await.json().await.unwrap();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    for path in ["/recommendations", "/items/{id}/neighbours", "/popular", "/users", "/events"] {
        assert!(paths.iter().any(|p| *p == path), "{path} is not described");
    }
    let page = replica.get("/docs/").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.text().await.unwrap().contains("swagger"));
    replica.recommend("x", 1).await;
    let ok = replica
        .metric(r#"http_server_request_duration_seconds_count{http_route="/recommendations",status_class="2xx"}"#);
    assert_eq!(ok.await, 1.0);
    let health = replica.http.get(format!("{}/healthz", replica.admin)).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
}
