//! What only the gateway sees is counted: requests that no replica answers.

use std::time::Duration;

use launcher::{Spec, Stack, free_port, nginx};

use crate::{Home, wait_until};

/// Requests in the test.
const REQUESTS: usize = 20;

async fn get(http: &reqwest::Client, url: &str) -> u16 {
    http.get(url).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_a_dead_replica_are_counted_at_the_gateway() {
    if !launcher::testing::have(&["nginx"]) {
        return;
    }
    let home = Home::bare();
    let mut stack = Stack::create("gateway").unwrap();
    let [dead, listen, admin] = [(); 3].map(|()| free_port().unwrap());
    let at = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let words = ["serve", "access-log", "--listen", &at(listen).to_string(), "--admin", &at(admin).to_string()];
    stack.spawn(Spec::new("access-log", env!("CARGO_BIN_EXE_testbed")).args(words)).unwrap();
    home.waits_for(&format!("http://{}/healthz", at(admin)));
    let options = nginx::Options {
        listen_port: free_port().unwrap(),
        upstreams: vec![at(dead).to_string()],
        worker_processes: 2,
        access_log: Some(at(listen)),
        slots: None,
    };
    let gateway = nginx::start(&mut stack, &options).await.unwrap().url;

    let http = runtime::http::plain().timeout(Duration::from_secs(5)).build().unwrap();
    for _ in 0..REQUESTS {
        assert_eq!(get(&http, &format!("{gateway}/recommendations?user_id=u000001")).await, 502);
    }
    assert_eq!(get(&http, &format!("{gateway}/recommendations-of-others")).await, 502);
    assert_eq!(get(&http, &format!("{gateway}/-/metrics")).await, 200);
    let counted = |route: &str, class: &str| {
        format!("gateway_request_duration_seconds_count{{http_route=\"{route}\",status_class=\"{class}\"}}")
    };
    let expected = [
        format!("{} {REQUESTS}", counted("/recommendations", "5xx")),
        format!("{} 1", counted("other", "5xx")),
        // Prometheus's own requests are not counted.
        format!("{} 0", counted("other", "2xx")),
        "gateway_log_lines_malformed_total 0".to_owned(),
        "gateway_log_lines_dropped_total 0".to_owned(),
    ];
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        wait_until("every request is counted", || {
            let text = handle.block_on(async {
                http.get(format!("http://{}/metrics", at(admin))).send().await.unwrap().text().await.unwrap()
            });
            expected.iter().all(|series| text.lines().any(|line| line == series))
        });
    });
    let connections = http.get(format!("{gateway}/-/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(connections.lines().any(|line| line.starts_with("nginx_connections{state=\"writing\"} ")), "{connections}");
    stack.stop().await.unwrap();
}
