use contract::http::Problem;
use faultproxy::{Client, Config, Fault, Law, Proxy, Route};
use reqwest::{Method, StatusCode};
use runtime::client::ClientError;

use crate::support::{Running, free};

#[tokio::test]
async fn state_follows_the_calls() {
    let proxy = Running::start(free()).await;
    let law = Law::Linear { base_ms: 74.0, slope_ms: 0.2, crosstalk_ms: 0.0, spread: 0.3 };
    proxy.client.set_law(law).await.unwrap();
    let stall = Fault::Stall.for_ms(60_000);
    proxy.client.add_fault(stall.clone()).await.unwrap();
    proxy.client.add_fault(Fault::Refuse).await.unwrap();
    let state = proxy.state().await;
    assert_eq!((state.law, state.in_flight, state.connections), (law, 0, 0));
    assert_eq!(state.faults.iter().map(|each| each.spec.clone()).collect::<Vec<_>>(), [stall, Fault::Refuse.into()]);
    assert!(state.faults[0].remaining_ms.is_some_and(|ms| ms <= 60_000) && state.faults[1].remaining_ms.is_none());
    assert_eq!(state.listeners.len(), 1);
    assert_eq!(state.listeners[0].listen, proxy.address.into());
    proxy.client.clear().await.unwrap();
    assert!(proxy.state().await.faults.is_empty());
    let ok = reqwest::get(format!("{}/healthz", proxy.url)).await.unwrap();
    assert_eq!(ok.status(), StatusCode::OK);
    proxy.shutdown.cancel();
    proxy.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn errors_are_problems() {
    let proxy = Running::start(free()).await;
    let http = reqwest::Client::new();
    let long = "x".repeat(20_000);
    for (method, path, body, status, field) in [
        (Method::PUT, "/law", r#"{"base_ms":-1,"slope_ms":0,"spread":0}"#, 400, Some("base_ms")),
        (Method::PUT, "/law", r#"{"base_ms":1,"slope":0,"spread":0}"#, 400, None),
        (Method::PUT, "/law", "", 400, None),
        (Method::PUT, "/law", &long, 413, None),
        (Method::POST, "/faults", r#"{"kind":"stall","ms":4}"#, 400, Some("ms")),
        (Method::POST, "/faults", r#"{"kind":"flood"}"#, 400, None),
        (Method::DELETE, "/faults/flood", "", 404, None),
        (Method::GET, "/nowhere", "", 404, None),
        (Method::POST, "/state", "", 405, None),
    ] {
        let request = http.request(method.clone(), format!("{}{path}", proxy.url)).body(body.to_owned());
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let problem: Problem = response.json().await.unwrap();
        assert_eq!((problem.status, problem.field.as_deref()), (status, field), "{method} {path}");
    }
    let state = proxy.state().await;
    assert!(state.law == Law::None && state.faults.is_empty());
    // The client reports the server's error.
    let bad = Fault::Latency { ms: 1e9, jitter_ms: 0.0 };
    let Err(ClientError::Refused { status, detail, .. }) = proxy.client.add_fault(bad).await else {
        panic!("accepted")
    };
    assert!(status == 400 && detail.starts_with("ms: is 1000000000"), "{detail}");
    let nobody = Client::new(&format!("http://{}", free())).unwrap();
    assert!(matches!(nobody.state().await, Err(ClientError::Http { .. })));
}

#[tokio::test]
async fn configurations_are_checked() {
    let text = r#"{"listeners":[{"listen":"127.0.0.1:3301","upstream":"127.0.0.1:3302"}],"admin":"127.0.0.1:3303",
        "law":{"base_ms":1,"slope_ms":0,"spread":0}}"#;
    let config: Config = serde_json::from_str(text).unwrap();
    assert_eq!(config.max_connections, faultproxy::DEFAULT_MAX_CONNECTIONS);
    assert_eq!(serde_json::from_str::<Config>(&serde_json::to_string(&config).unwrap()).unwrap(), config);
    assert!(serde_json::from_str::<Config>(&text.replace("\"law\"", "\"laws\"")).is_err());

    let route = Route::new(free(), free());
    let good =
        Config { listeners: vec![route.clone()], links: Vec::new(), admin: free(), law: Law::None, max_connections: 1 };
    for (bad, expected) in [
        (Config { listeners: vec![], ..good.clone() }, "must not be empty"),
        (Config { listeners: vec![route.clone(), route.clone()], ..good.clone() }, "used twice"),
        (
            Config { listeners: vec![Route { upstream: route.listen.clone(), ..route }], ..good.clone() },
            "its own upstream",
        ),
        (Config { max_connections: 0, ..good.clone() }, "max_connections"),
    ] {
        let error = Proxy::bind(bad).await.unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{error:#}");
    }
    let taken = Proxy::bind(good.clone()).await.unwrap();
    let error = Proxy::bind(good).await.unwrap_err();
    assert!(format!("{error:#}").contains("cannot listen on"), "{error:#}");
    drop(taken);
}
