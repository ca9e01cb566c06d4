//! Every request gets a response: a problem document if it is refused, and never a 5xx.

use std::time::Duration;

use api::Profile;
use contract::http::Problem;
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
};

use crate::Fixture;

#[derive(Debug, Clone)]
struct Request {
    method: &'static str,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What HTTP allows in a request line; other bytes never reach the service.
const URI: &str = "[!$-;=?-Z_a-z~\\[\\]|]{0,80}";

fn target() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        URI.prop_map(|text: String| text.replace('#', "")),
        proptest::collection::vec(any::<u8>(), 0..80)
            .prop_map(|bytes| bytes.iter().map(|b| format!("%{b:02x}")).collect()),
        "[0-9]{1,30}".boxed(),
        "-?[0-9]{1,3}(e[0-9])?".boxed(),
        "%[0-9a-gA-G%]{0,3}".boxed(),
    ];
    let key = prop_oneof![Just("user_id".to_owned()), Just("limit".to_owned()), "[a-zA-Z_%&=+]{0,12}".boxed()];
    let noise = proptest::collection::vec((key, value.clone()), 0..5)
        .prop_map(|pairs| pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&"));
    let query = prop_oneof![
        2 => "user_id=(u[0-9]{1,6}|%[4-6][1-9]%20\\+)(&limit=[1-9][0-9]?)?".boxed(),
        3 => noise,
    ];
    let path = prop_oneof![
        4 => Just("/recommendations".to_owned()),
        1 => Just("/popular".to_owned()),
        2 => Just("/users".to_owned()),
        2 => Just("/events".to_owned()),
        1 => value.prop_map(|id| format!("/items/{}/neighbours", id.replace(['?', '/'], ""))),
        1 => "/[a-z%/.]{0,20}".boxed(),
    ];
    (path, query).prop_map(|(path, query)| format!("{path}?{query}"))
}

/// Almost valid, so that more of the code is reached.
fn json() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        "\"[^\"\\\\\\x00-\\x1f]{0,70}\"".boxed(),
        "\"\\\\u[0-9a-f]{4}\"".boxed(),
        "-?[0-9]{1,20}(\\.[0-9]{1,5})?(e[0-9]{1,4})?".boxed(),
        Just("null".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("\"view\"".to_owned()),
        Just("\"i00001\"".to_owned()),
    ];
    let key = prop_oneof![
        Just("user_id".to_owned()),
        Just("item_id".to_owned()),
        Just("event".to_owned()),
        Just("timestamp".to_owned()),
        Just("weight".to_owned()),
        "[a-z]{0,5}".boxed(),
    ];
    let object = proptest::collection::vec((key, value), 0..6).prop_map(|fields| {
        let fields: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    });
    let user = "u[0-9]{1,6}".prop_map(|user: String| format!("{{\"user_id\":\"{user}\"}}"));
    let event = ("u[0-9]{1,6}", "i[0-9]{5}").prop_map(|(user, item): (String, String)| {
        format!("{{\"user_id\":\"{user}\",\"item_id\":\"{item}\",\"event\":\"view\"}}")
    });
    prop_oneof![
        3 => user,
        3 => event,
        2 => object.clone(),
        2 => proptest::collection::vec(object, 0..4).prop_map(|objects| format!("[{}]", objects.join(","))),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let method =
        prop_oneof![8 => Just(None), 1 => Just(Some("GET")), 1 => Just(Some("PUT")), 1 => Just(Some("DELETE"))];
    let name = prop_oneof![
        3 => Just("content-type".to_owned()),
        1 => Just("accept".to_owned()),
        1 => Just("accept-encoding".to_owned()),
        1 => Just("range".to_owned()),
        1 => Just("cookie".to_owned()),
        1 => Just("if-none-match".to_owned()),
        1 => "x-[a-z0-9-]{1,20}".boxed(),
    ];
    let value = prop_oneof![3 => Just("application/json".to_owned()), 2 => "[ -~]{0,60}".boxed()];
    let body = prop_oneof![
        3 => json().prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..300),
    ];
    let headers = prop_oneof![
        2 => Just(vec![("content-type".to_owned(), "application/json".to_owned())]),
        1 => proptest::collection::vec((name, value), 0..4),
    ];
    (method, target(), headers, body).prop_map(|(method, target, headers, body)| {
        // Usually the method of the path.
        let posts = ["/users", "/events"].iter().any(|path| target.starts_with(path));
        let method = method.unwrap_or(if posts { "POST" } else { "GET" });
        Request { method, target, headers, body }
    })
}

/// Status, content type and body of the response.
async fn send(address: &str, request: &Request) -> std::io::Result<(u16, String, Vec<u8>)> {
    let mut bytes = format!("{} {} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n", request.method, request.target);
    for (name, value) in &request.headers {
        bytes.push_str(&format!("{name}: {value}\r\n"));
    }
    bytes.push_str(&format!("content-length: {}\r\n\r\n", request.body.len()));
    let mut bytes = bytes.into_bytes();
    bytes.extend(&request.body);
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&bytes).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let invalid = || std::io::Error::other(format!("no answer: {}", String::from_utf8_lossy(&answer)));
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(invalid)?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(invalid)?;
    let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    Ok((status, content_type.to_owned(), answer[end + 4..].to_vec()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anything_is_answered_and_never_by_a_failure() {
    let Some(fixture) = Fixture::start().await else { return };
    for profile in [Profile::Baseline, Profile::Protected] {
        let replica = fixture.replica(profile).await;
        let address = replica.base.strip_prefix("http://").unwrap().to_owned();
        let (handle, mut statuses) = (Handle::current(), std::collections::BTreeMap::<u16, u32>::new());
        let tested = tokio::task::block_in_place(|| {
            let config = Config { cases: 500, failure_persistence: None, ..Config::default() };
            let counted = std::cell::RefCell::new(&mut statuses);
            TestRunner::new(config).run(&request(), |request| {
                let sent = tokio::time::timeout(Duration::from_secs(20), send(&address, &request));
                let (status, content_type, body) = handle
                    .block_on(async { sent.await.map_err(|_| std::io::Error::other("no answer in 20 s"))? })
                    .map_err(|error| TestCaseError::fail(error.to_string()))?;
                *counted.borrow_mut().entry(status).or_default() += 1;
                prop_assert!(status < 500, "{status}");
                if status >= 400 {
                    prop_assert_eq!(content_type, "application/problem+json");
                    let problem: Problem =
                        serde_json::from_slice(&body).map_err(|error| TestCaseError::fail(error.to_string()))?;
                    prop_assert_eq!(problem.status, status);
                }
                Ok(())
            })
        });
        tested.unwrap();
        // Some requests succeed and some are refused, so the strategy covers both.
        let count = |status: u16| statuses.get(&status).copied().unwrap_or(0);
        assert!(count(200) >= 5 && count(201) + count(202) >= 5 && count(400) >= 5, "{statuses:?}");
    }
}
