//! `/openapi.json` is correct: the tests produce every status that it documents, and compare each response's content type, headers and body
//! with it.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use api::Profile;
use contract::http::{Problem, problem as kinds};
use launcher::{Signal, free_port, nginx};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Executor, MySqlConnection, mysql::MySqlConnectOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Fixture, Replica};

/// Method, path template, status.
type Answered = (String, String, String);

struct Document {
    root: Value,
    seen: BTreeSet<Answered>,
}

impl Document {
    async fn of(replica: &Replica) -> Self {
        Self { root: replica.get("/openapi.json").await.json().await.unwrap(), seen: BTreeSet::new() }
    }

    fn operations(&self) -> impl Iterator<Item = (&String, &String, &Value)> {
        let paths = self.root["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, methods)| {
            methods.as_object().unwrap().iter().map(move |(method, described)| (method, path, described))
        })
    }

    fn described(&self) -> BTreeSet<Answered> {
        let each = self.operations().flat_map(|(method, path, operation)| {
            let statuses = operation["responses"].as_object().unwrap().keys();
            statuses.map(move |status| (method.clone(), path.clone(), status.clone()))
        });
        each.collect()
    }

    fn limit(&self, schema: &str, field: &str, keyword: &str) -> f64 {
        self.root["components"]["schemas"][schema]["properties"][field][keyword].as_f64().unwrap()
    }

    /// Compares the response with its documentation.
    async fn check(&mut self, method: &str, path: &str, status: u16, answer: Response) {
        let at = format!("{method} {path} {status}");
        assert_eq!(answer.status().as_u16(), status, "{at}");
        let described = self.root["paths"][path][method]["responses"][status.to_string()].clone();
        let content = described["content"].as_object().unwrap_or_else(|| panic!("{at} is not described"));
        let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
        let schema = &content.get(&content_type).unwrap_or_else(|| panic!("{at}: {content_type}"))["schema"];
        if status >= 400 {
            assert_eq!(content_type, "application/problem+json", "{at}");
        }
        let retry_after = answer.headers().get("retry-after");
        assert_eq!(retry_after.is_some(), described["headers"]["Retry-After"].is_object(), "{at}: Retry-After");
        assert!(retry_after.is_none_or(|seconds| seconds.to_str().unwrap().parse::<u32>().is_ok()), "{at}");
        let body: Value = answer.json().await.unwrap();
        self.fits(schema, &body, &at);
        self.seen.insert((method.to_owned(), path.to_owned(), status.to_string()));
    }

    /// Fails if `value` does not match this schema, or if the schema uses a keyword that this check does not know.
    fn fits(&self, schema: &Value, value: &Value, at: &str) {
        let keywords = schema.as_object().unwrap();
        for (keyword, rule) in keywords {
            let good = match keyword.as_str() {
                "$ref" => {
                    let target = self.root.pointer(rule.as_str().unwrap().strip_prefix('#').unwrap()).unwrap();
                    self.fits(target, value, at);
                    true
                }
                "type" => {
                    let allowed = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                    allowed.iter().any(|name| is_of_type(value, name.as_str().unwrap()))
                }
                "required" => rule.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some()),
                "properties" => {
                    for (name, field) in value.as_object().unwrap() {
                        // A response has no field that is not documented.
                        let field_schema = rule.get(name).unwrap_or_else(|| panic!("{at}: {name} is not described"));
                        self.fits(field_schema, field, &format!("{at} {name}"));
                    }
                    true
                }
                "items" => {
                    value.as_array().unwrap().iter().for_each(|item| self.fits(rule, item, at));
                    true
                }
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.as_f64().unwrap() >= rule.as_f64().unwrap(),
                "minLength" => value.as_str().unwrap().chars().count() >= rule.as_u64().unwrap() as usize,
                "maxLength" => value.as_str().unwrap().chars().count() <= rule.as_u64().unwrap() as usize,
                // The only pattern is that of ids.
                "pattern" => contract::id::check(value.as_str().unwrap()).is_ok(),
                "description" | "format" | "example" | "examples" => true,
                other => panic!("{at}: the test does not know the keyword {other}"),
            };
            assert!(good, "{at}: {value} breaks {keyword} {rule}");
        }
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    }
}

/// Until it is dropped, all reads and writes of users and their log wait.
async fn lock_everything(fixture: &Fixture) -> MySqlConnection {
    let options = MySqlConnectOptions::new().host("127.0.0.1").port(fixture.mysql.port).username("root");
    let mut connection = options.connect().await.unwrap();
    let tables: Vec<String> =
        contract::ShardId::all().map(|shard| format!("{0}.behaviour WRITE, {0}.users WRITE", shard.schema())).collect();
    let lock = format!("LOCK TABLES {}", tables.join(","));
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(lock))).await.unwrap();
    connection
}

const RECOMMENDATIONS: &str = "/recommendations";
const NEIGHBOURS: &str = "/items/{id}/neighbours";
const EVENT: &str = r#"{"user_id":"writer","item_id":"b","event":"view","timestamp":1750000000}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_status_that_is_described_occurs_as_described() {
    let Some(mut fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Baseline);
    config.http.max_body_bytes = 300_000;
    let replica = Replica::start(config).await;
    let mut document = Document::of(&replica).await;
    let item = fixture.seen(5)[0].to_owned();
    let user = |n: usize| format!("/recommendations?user_id={}", fixture.user(n));
    let (path_1, path_2, path_3) = (user(1), user(2), user(3));

    for (template, path, status) in [
        (RECOMMENDATIONS, path_1.as_str(), 200),
        (RECOMMENDATIONS, "/recommendations?user_id=", 400),
        (NEIGHBOURS, &format!("/items/{item}/neighbours"), 200),
        (NEIGHBOURS, "/items/%00/neighbours", 400),
        (NEIGHBOURS, "/items/unheard-of/neighbours", 404),
        ("/popular", "/popular", 200),
        ("/popular", "/popular?limit=0", 400),
    ] {
        document.check("get", template, status, replica.get(path).await).await;
    }
    let long = format!("{{\"user_id\":\"{}\"}}", "x".repeat(300_001));
    for (path, body, status) in [
        ("/users", r#"{"user_id":"writer"}"#, 201),
        ("/users", r#"{"user_id":"writer"}"#, 200),
        ("/users", r#"{"user_id":"a","admin":true}"#, 400),
        ("/users", &long, 413),
        ("/events", EVENT, 202),
        ("/events", "[]", 400),
        ("/events", &long, 413),
    ] {
        document.check("post", path, status, replica.post(path, body).await).await;
    }
    for path in ["/users", "/events"] {
        let text =
            replica.http.post(format!("{}{path}", replica.base)).header("content-type", "text/plain").body(EVENT);
        document.check("post", path, 415, text.send().await.unwrap()).await;
    }

    // The deadline is short only here: on a busy machine, requests that must succeed may need longer.
    let mut config = fixture.config(Profile::Baseline);
    config.http.deadline_ms = 300;
    let hurried = Replica::start(config).await;
    let locker = lock_everything(&fixture).await;
    document.check("get", RECOMMENDATIONS, 504, hurried.get(&path_2).await).await;
    document.check("post", "/users", 504, hurried.post("/users", r#"{"user_id":"late"}"#).await).await;
    document.check("post", "/events", 504, hurried.post("/events", EVENT).await).await;
    drop(locker);

    fixture.stack.kill(fixture.mysql.child, Signal::SIGKILL).unwrap();
    fixture.stack.stop_child(fixture.mysql.child).await.unwrap();
    document.check("get", RECOMMENDATIONS, 503, replica.get(&path_3).await).await;
    document.check("post", "/users", 503, replica.post("/users", r#"{"user_id":"later"}"#).await).await;
    document.check("post", "/events", 503, replica.post("/events", EVENT).await).await;

    assert_eq!(document.seen, document.described());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limits_that_are_described_are_those_that_hold() {
    let Some(fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Baseline).await;
    let document = Document::of(&replica).await;
    let post = async |path: &str, body: &Value| replica.post(path, &body.to_string()).await.status().as_u16();

    let id = &document.root["components"]["schemas"]["Id"];
    let (shortest, longest) = (id["minLength"].as_u64().unwrap() as usize, id["maxLength"].as_u64().unwrap() as usize);
    assert!(id["pattern"].is_string() && id["description"].as_str().unwrap().contains("bytes"));
    for (user_id, status) in [
        ("x".repeat(shortest), 201),
        ("x".repeat(longest), 201),
        ("x".repeat(longest + 1), 400),
        (String::new(), 400),
        ("\u{80}".into(), 400),
        // The same number of characters, but twice the bytes.
        ("ä".repeat(longest), 400),
        ("ä".repeat(longest / 2), 201),
    ] {
        assert_eq!(post("/users", &json!({"user_id": user_id})).await, status, "{user_id:?}");
    }
    let references = ["user_id", "item_id"].map(|field| {
        document.root["components"]["schemas"]["NewEvent"]["properties"][field]["$ref"].as_str().unwrap().to_owned()
    });
    assert!(references.iter().all(|reference| reference == "#/components/schemas/Id"));

    let event = |field: &str, value: f64| {
        let mut event: Value = serde_json::from_str(EVENT).unwrap();
        event[field] = json!(value);
        event
    };
    let limit = |field: &str, keyword: &str| document.limit("NewEvent", field, keyword);
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    for (field, value, status) in [
        ("weight", limit("weight", "minimum"), 202),
        ("weight", limit("weight", "maximum"), 202),
        ("weight", limit("weight", "minimum").next_down(), 400),
        ("weight", limit("weight", "maximum").next_up(), 400),
        ("timestamp", limit("timestamp", "minimum"), 202),
        ("timestamp", limit("timestamp", "minimum") - 1e-3, 400),
        // Rounded to milliseconds it would be 0.
        ("timestamp", limit("timestamp", "minimum").next_down(), 400),
        // A schema cannot express the current time: the description states the limit.
        ("timestamp", now_s + 240.0, 202),
        ("timestamp", now_s + 600.0, 400),
    ] {
        assert_eq!(post("/events", &event(field, value)).await, status, "{field} {value}");
    }

    let batch = &document.root["components"]["schemas"]["EventBatch"];
    let (fewest, most) = (batch["minItems"].as_u64().unwrap() as usize, batch["maxItems"].as_u64().unwrap() as usize);
    let many = |count: usize| Value::Array((0..count).map(|second| event("timestamp", second as f64)).collect());
    for (count, status) in [(fewest, 202), (most, 202), (fewest - 1, 400), (most + 1, 413)] {
        assert_eq!(post("/events", &many(count)).await, status, "{count} events");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_405_names_the_methods_that_are_described() {
    if !launcher::testing::have(&["nginx"]) {
        return;
    }
    let Some(mut fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Baseline).await;
    let document = Document::of(&replica).await;
    let upstreams = vec![replica.base.strip_prefix("http://").unwrap().to_owned()];
    let options = nginx::Options {
        listen_port: free_port().unwrap(),
        upstreams,
        worker_processes: 1,
        access_log: None,
        slots: None,
    };
    let gateway = nginx::start(&mut fixture.stack, &options).await.unwrap();
    for (method, path, _) in document.operations() {
        let allow = if method == "get" { "GET,HEAD" } else { "POST" };
        // nginx refuses TRACE.
        let others =
            [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::TRACE];
        for other in others.into_iter().filter(|other| !other.as_str().eq_ignore_ascii_case(method)) {
            for base in [&replica.base, &gateway.url] {
                let url = format!("{base}{}?limit=1", path.replace("{id}", "i00001"));
                let answer = replica.http.request(other.clone(), &url).send().await.unwrap();
                assert_eq!(answer.headers()["allow"], allow, "{other} {url}");
                let (status, problem) = crate::problem(answer).await;
                assert_eq!((status.as_u16(), problem.kind.as_str()), (405, kinds::METHOD_NOT_ALLOWED), "{other} {url}");
            }
        }
    }
}

/// Status, header and problem document of the response to these bytes.
async fn answer_of(port: u16, request: &str) -> (u16, String, Problem) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request:.80}: {answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let head = head.to_lowercase();
    assert!(head.contains("\r\ncontent-type: application/problem+json"), "{request:.80}: {head}");
    (status, head, serde_json::from_str(body).unwrap())
}

/// nginx's own responses, without a replica.
#[tokio::test]
async fn what_the_gateway_refuses_is_a_problem_document_too() {
    if !launcher::testing::have(&["nginx"]) {
        return;
    }
    let mut stack = launcher::Stack::create("test-gateway").unwrap();
    let upstreams = vec![format!("127.0.0.1:{}", free_port().unwrap())];
    let options = nginx::Options {
        listen_port: free_port().unwrap(),
        upstreams,
        worker_processes: 1,
        access_log: None,
        slots: None,
    };
    let gateway = nginx::start(&mut stack, &options).await.unwrap();
    let close = "HTTP/1.1\r\nhost: h\r\nconnection: close\r\n";
    for (request, status, kind) in [
        (format!("POST /events {close}content-length: 20000000\r\n\r\n"), 413, kinds::TOO_LARGE),
        (format!("GET /popular?{} {close}\r\n", "x".repeat(40_000)), 414, kinds::TOO_LARGE),
        (format!("GET /popular {close}x: {}\r\n\r\n", "x".repeat(40_000)), 400, kinds::INVALID_REQUEST),
        ("GET /popular HTTP/1.1\r\n\r\n".into(), 400, kinds::INVALID_REQUEST),
        (format!("TRACE /events?a {close}\r\n"), 405, kinds::METHOD_NOT_ALLOWED),
        (format!("GET /popular {close}\r\n"), 502, "/problems/gateway"),
        (format!("POST /users {close}content-length: 2\r\n\r\n{{}}"), 502, "/problems/gateway"),
        // No server listens at the address in these documents.
        (format!("GET /-/problem {close}\r\n"), 404, kinds::NOT_FOUND),
    ] {
        let (got, head, problem) = answer_of(gateway.port, &request).await;
        assert_eq!((got, problem.status, problem.kind.as_str()), (status, status, kind), "{request:.80}");
        assert_eq!(head.contains("\r\nallow: post"), status == 405, "{request:.80}: {head}");
    }
    stack.stop().await.unwrap();
}
