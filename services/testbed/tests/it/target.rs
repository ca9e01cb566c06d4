//! `load --target`: a service of somebody else's, which this test writes itself, and no stack.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use launcher::Signal;
use serde_json::Value;

use crate::{Home, wait_until};

/// Answers each request after `SERVICE`; `/missing` with 404. Keeps the paths.
struct Service {
    url: String,
    paths: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

const SERVICE: Duration = Duration::from_millis(20);

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let paths = Arc::<Mutex<Vec<String>>>::default();
        let ended = Arc::<AtomicBool>::default();
        let (seen, stop) = (Arc::clone(&paths), Arc::clone(&ended));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let seen = Arc::clone(&seen);
                // The client's end of the connection ends the thread.
                std::thread::spawn(move || connection(stream, &seen));
            }
        });
        Self { url, paths, ended }
    }

    fn asked(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.url.trim_start_matches("http://")));
    }
}

fn connection(mut stream: TcpStream, paths: &Mutex<Vec<String>>) -> Option<()> {
    let (mut buffer, mut request) = ([0; 2048], Vec::new());
    loop {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&buffer[..read]);
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        let path = String::from_utf8_lossy(&request).split(' ').nth(1)?.to_owned();
        request.clear();
        let status = if path == "/missing" { "404 Not Found" } else { "200 OK" };
        paths.lock().ok()?.push(path);
        std::thread::sleep(SERVICE);
        stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok").as_bytes()).ok()?;
    }
}

#[test]
fn another_service_is_loaded_at_a_rate_and_reported() {
    let (home, service) = (Home::bare(), Service::start());
    std::fs::write(home.path().join("ids.txt"), "a b\nc&d\n").unwrap();
    let url = format!("{}/items?id={{id}}", service.url);
    let command = ["load", "--target", &url, "--ids", "ids.txt", "--rate", "50", "--for", "2s", "--timeout", "2s"];
    let report = home.loaded(&[&command[..], &["--out", "report", "--json"]].concat());
    let step = &report["steps"][0];
    assert!(step["p50_ms"].as_f64().unwrap() >= 20.0 && step["error_pct"] == 0.0, "{step}");
    assert_eq!((&step["offered_per_s"], &step["foreign"]), (&Value::from(50.0), &Value::from(true)));
    assert!(step.get("store_queries_per_request").is_none() && step["hit_ratio"].is_null(), "{step}");
    assert!(step["cpu"]["load"].as_f64().is_some() && step["scheduling"].is_object(), "{step}");
    let target = &report["scenario"]["target"];
    assert_eq!((target["url"].as_str(), &target["remote"]), (Some(url.as_str()), &Value::from(false)));
    let asked = service.asked();
    for id in ["a%20b", "c%26d"] {
        assert!(asked.contains(&format!("/items?id={id}")), "{asked:?}");
    }
    for file in ["report.json", "report.md", "report.html", "target-50-1.hlog"] {
        assert!(home.path().join("report").join(file).exists(), "{file}");
    }
    let text = std::fs::read_to_string(home.path().join("report/report.md")).unwrap();
    assert!(text.contains("shares the CPU with the load generator") && !text.contains("Store"), "{text}");
}

#[test]
fn users_wait_for_their_answers_and_errors_are_counted_by_status() {
    let (home, service) = (Home::bare(), Service::start());
    let url = format!("{}/missing", service.url);
    // The flag is no reason to refuse this machine; the announcement comes first.
    let output = home.run(&["load", "--target", &url, "--allow-remote", "--users", "5", "--for", "2s", "--json"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("Sending to 127.0.0.1:") && error.contains("5 users who send once a second"), "{error}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let step = &report["steps"][0];
    assert_eq!((&step["good_per_s"], &step["error_pct"]), (&Value::from(0.0), &Value::from(100.0)));
    assert!(step["errors"]["bad_status_404"].as_u64().unwrap() > 0, "{step}");
}

#[test]
fn what_must_not_or_cannot_be_sent_is_refused_at_once() {
    let (home, service) = (Home::bare(), Service::start());
    std::fs::write(home.path().join("ids.txt"), "a\n").unwrap();
    let with_id = format!("{}/{{id}}", service.url);
    for (words, reason) in [
        // A documentation address: nothing is there.
        (&["--target", "http://192.0.2.1:81/"][..], "192.0.2.1:81 is not a loopback address"),
        (&["--target", "https://127.0.0.1/"], "proxy that ends TLS"),
        (&["--target", &with_id], "give --ids"),
        (&["--target", &service.url, "--ids", "ids.txt"], "no id of --ids would be sent"),
        (&["--target", &with_id, "--ids", "none.txt"], "cannot read the ids in none.txt"),
        (&["--target", &with_id, "--ids", "."], "cannot read the ids in ."),
        (&["--target", &with_id, "--ids", "ids.txt", "--zipf", "9"], "exponent must be 0..=5"),
    ] {
        let error = home.fails(&[&["load", "--users", "1", "--for", "1s"], words].concat());
        assert!(error.contains(reason), "{words:?}: {error}");
    }
    let rate = ["load", "--target", "http://192.0.2.1:81/", "--allow-remote", "--rate", "5001", "--for", "1s"];
    let error = home.fails(&rate);
    assert!(error.contains("at most 5000 requests/s are sent, and 5001 are planned") && !error.contains("Sending"));
    assert_eq!(service.asked(), [""; 0]);
}

#[test]
fn an_interrupt_ends_the_load_at_once() {
    let (home, service) = (Home::bare(), Service::start());
    let mut child = home.start(&["load", "--target", &service.url, "--users", "20", "--for", "1h"]);
    wait_until("requests", || service.asked().len() > 20);
    crate::signal(&child, Signal::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // The load generator has ended: nobody holds a stack, and so nobody sends.
    assert_eq!(home.processes(), [0; 0]);
}
