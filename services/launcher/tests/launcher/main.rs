//! Real processes, real signals.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod bootstrap;
mod kafka;
mod quota;

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use launcher::{ProcessIdentity, Signal, Spec, Stack, free_port, mariadb, nginx, orphans, prometheus, redis, testing};

const PATIENCE: Duration = Duration::from_secs(20);
/// Environment variable for a copy of this test binary that will be killed: the file for its stack's directory.
const VICTIM: &str = "LAUNCHER_TEST_VICTIM";

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn shell(name: &str, script: &str) -> Spec {
    Spec::new(name, "/bin/sh").args(["-c", script])
}

fn log_of(stack: &Stack, name: &str) -> String {
    std::fs::read_to_string(stack.log_path(name)).unwrap_or_default()
}

fn found(dir: &Path) -> Option<orphans::FoundStack> {
    orphans::find().unwrap().into_iter().find(|found| found.dir == dir)
}

#[tokio::test]
async fn a_child_runs_in_its_own_directory_and_group_and_ends_with_the_stack() {
    let mut stack = Stack::create("test-spawn").unwrap();
    let spec = shell(
        "child",
        "trap 'echo asked; exit 0' TERM; pwd; echo $TESTBED_STACK $EXTRA; echo up >&2; while :; do sleep 0.05; done",
    );
    let child = stack.spawn(spec.env("EXTRA", "more")).unwrap();
    eventually("the child's output", || log_of(&stack, "child").contains("up\n"));
    let dir = stack.dir().to_owned();
    assert_eq!(log_of(&stack, "child"), format!("{0}/child\n{0} more\nup\n", dir.display()));

    let pid = stack.pid(child).unwrap();
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid.try_into().unwrap()))).unwrap();
    assert_eq!(u32::try_from(group.as_raw()).unwrap(), pid, "Ctrl-C in a terminal goes to the foreground group");

    stack.set_endpoint("somewhere", "http://127.0.0.1:1").unwrap();
    let seen = found(&dir).unwrap();
    let description = seen.description.as_ref().unwrap();
    assert!(seen.owner_alive && !seen.is_orphaned());
    assert_eq!((seen.name(), description.owner), ("test-spawn", ProcessIdentity::current()));
    assert_eq!(description.children[0].process, ProcessIdentity::of(pid).unwrap());
    assert_eq!(description.endpoints["somewhere"], "http://127.0.0.1:1");
    assert!(seen.processes.iter().any(|member| member.process.pid == pid));

    stack.check().unwrap();
    stack.keep_scratch();
    let log = stack.log_path("child");
    let socket = stack.socket_path("child");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    stack.stop().await.unwrap();
    assert!(!socket.parent().unwrap().exists(), "sockets are not kept");
    assert!(std::fs::read_to_string(log).unwrap().ends_with("asked\n"), "it was asked before it was killed");
    assert!(reaped(pid));
    std::fs::remove_dir_all(dir).unwrap();
}

/// The scheduling policy, from /proc.
fn policy(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split_ascii_whitespace().nth(38).unwrap().to_owned()
}

#[tokio::test]
async fn children_of_a_batch_stack_yield_and_a_policy_of_somebodys_choice_is_kept() {
    let mut stack = Stack::create("batch").unwrap();
    let plain = stack.spawn(shell("plain", "exec sleep 60")).unwrap();
    stack.batch();
    let named = stack.policy();
    let batch = stack.spawn(shell("batch", "exec sleep 60")).unwrap();
    let ours = policy(std::process::id());
    // SCHED_OTHER and SCHED_BATCH.
    let expected = if ours == "0" { "3" } else { ours.as_str() };
    let [plain, batch] = [plain, batch].map(|child| policy(stack.pid(child).unwrap()));
    assert_eq!((plain.as_str(), batch.as_str()), (ours.as_str(), expected));
    // A test may itself run under SCHED_IDLE.
    let names = [("1", "SCHED_FIFO"), ("2", "SCHED_RR"), ("3", "SCHED_BATCH"), ("5", "SCHED_IDLE")];
    assert!(names.contains(&(batch.as_str(), named)), "{batch} is called {named}");
    stack.stop().await.unwrap();
}

/// Not even a zombie is left, which would still be in /proc.
fn reaped(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn children_stop_in_reverse_order_and_the_deaf_are_killed() {
    let mut stack = Stack::create("test-order").unwrap();
    let order = stack.dir().join("order");
    for name in ["first", "second"] {
        let script =
            format!("trap 'echo {name} >> {}; exit 0' TERM; echo up; while :; do sleep 0.02; done", order.display());
        stack.spawn(shell(name, &script)).unwrap();
    }
    let deaf = stack.spawn(shell("deaf", "trap '' TERM; echo up; while :; do sleep 0.02; done")).unwrap();
    eventually("all are up", || ["first", "second", "deaf"].iter().all(|name| log_of(&stack, name).contains("up")));
    let (pid, dir) = (stack.pid(deaf).unwrap(), stack.dir().to_owned());
    stack.stop_child(deaf).await.unwrap();
    assert!(reaped(pid));
    stack.keep_scratch();
    stack.stop().await.unwrap();
    assert_eq!(std::fs::read_to_string(order).unwrap(), "second\nfirst\n");
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_panic_ends_the_children_and_their_children() {
    let (send, receive) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let mut stack = Stack::create("test-panic").unwrap();
        let child = stack.spawn(shell("parent", "sleep 600 & echo $!; wait")).unwrap();
        eventually("the grandchild", || log_of(&stack, "parent").ends_with('\n'));
        let grandchild: u32 = log_of(&stack, "parent").trim().parse().unwrap();
        send.send((stack.dir().to_owned(), stack.pid(child).unwrap(), grandchild)).unwrap();
        panic!("on purpose");
    });
    let (dir, child, grandchild) = receive.recv_timeout(PATIENCE).unwrap();
    assert!(panicked.join().is_err());
    assert!(reaped(child) && !dir.exists());
    eventually("the grandchild has ended", || ProcessIdentity::of(grandchild).is_none());
}

#[tokio::test]
async fn a_death_is_reported_with_the_logs_end_unless_it_was_ordered() {
    let mut stack = Stack::create("test-death").unwrap();
    let ordered = stack.spawn(Spec::new("ordered", "sleep").args(["600"])).unwrap();
    stack.kill(ordered, Signal::SIGKILL).unwrap();
    eventually("the ordered death", || stack.pid(ordered).is_none());
    stack.check().unwrap();
    assert!(stack.kill(ordered, Signal::SIGKILL).is_err(), "it has ended");
    stack.stop_child(ordered).await.unwrap();
    stack.spawn(Spec::new("ordered", "sleep").args(["600"])).expect("the name is free again");
    assert!(stack.spawn(Spec::new("ordered", "sleep")).is_err(), "and taken again");

    stack.spawn(shell("bad", "echo the reason; exit 3")).unwrap();
    let mut error = String::new();
    eventually("the death is seen", || stack.check().inspect_err(|e| error = e.to_string()).is_err());
    assert!(error.contains("bad ended unexpectedly, exit code 3") && error.contains("the reason"), "{error}");

    let missing = stack.spawn(Spec::new("missing", "/no/such/program")).unwrap_err();
    assert!(format!("{missing:#}").contains("cannot start missing (/no/such/program)"), "{missing:#}");
}

#[tokio::test]
async fn readiness_ends_with_the_child_or_the_deadline_and_shows_the_log() {
    let mut stack = Stack::create("test-ready").unwrap();
    let dies = stack.spawn(shell("dies", "echo port is taken; exit 1")).unwrap();
    let error = stack.wait_ready(dies, PATIENCE, || async { false }).await.unwrap_err().to_string();
    assert!(error.contains("dies ended unexpectedly") && error.contains("port is taken"), "{error}");

    let slow = stack.spawn(shell("slow", "echo still thinking; sleep 600")).unwrap();
    eventually("its output", || !log_of(&stack, "slow").is_empty());
    let never = || std::future::pending::<bool>();
    let error = stack.wait_ready(slow, Duration::from_millis(50), never).await.unwrap_err().to_string();
    assert!(error.contains("slow was not ready after 50ms") && error.contains("still thinking"), "{error}");

    stack.run(shell("once", "exit 0"), PATIENCE).await.unwrap();
    let error = stack.run(shell("once", "echo oh; exit 2"), PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("once failed, exit code 2") && error.contains("oh"), "{error}");
    let error = stack.run(shell("long", "sleep 600"), Duration::from_millis(50)).await.unwrap_err().to_string();
    assert!(error.contains("long did not finish within 50ms"), "{error}");
}

#[tokio::test]
async fn a_server_whose_port_is_taken_says_so() {
    if !testing::have(redis::PROGRAMS) {
        return;
    }
    let listener = TcpListener::bind(("127.0.0.1", free_port().unwrap())).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut stack = Stack::create("test-taken").unwrap();
    let options = redis::Options { port: Some(port), ..Default::default() };
    let error = redis::start(&mut stack, &options).await.unwrap_err().to_string();
    assert!(error.contains("redis ended unexpectedly") && error.contains("in use"), "{error}");
}

/// A test below runs this as a separate process that owns a stack until it is killed. Run alone, it checks that redis and nginx start, work
/// and stop.
#[tokio::test]
async fn redis_and_nginx_start_and_stop() {
    if !testing::have(&[redis::PROGRAMS[0], nginx::PROGRAMS[0]]) {
        return;
    }
    let mut stack = Stack::create("test-servers").unwrap();
    let redis = redis::start(&mut stack, &redis::Options::default()).await.unwrap();
    let listen_port = free_port().unwrap();
    let upstream = TcpListener::bind(("127.0.0.1", free_port().unwrap())).unwrap();
    let upstreams = vec![upstream.local_addr().unwrap().to_string()];
    let options = nginx::Options { listen_port, upstreams, worker_processes: 2, access_log: None, slots: None };
    let nginx = nginx::start(&mut stack, &options).await.unwrap();
    eventually("the master and two workers", || nginx_processes(stack.dir()).len() == 3);

    wait_if_victim(&stack).await;

    assert!(redis.version.starts_with("Redis ") && redis.version.contains('.'), "{}", redis.version);
    assert!(nginx.version.starts_with("nginx ") && nginx.version.contains('.'), "{}", nginx.version);
    let (request, answer) = through_nginx(&nginx, &upstream);
    assert!(request.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{request}");
    assert!(
        request.to_lowercase().contains("\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"),
        "{request}"
    );
    assert!(!request.to_lowercase().contains("connection: close"), "upstream connections stay open: {request}");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("busy"), "passed on, not retried: {answer}");
    eventually("the access log", || {
        let log = std::fs::read_to_string(&nginx.access_log).unwrap_or_default();
        log.lines().any(|line| line.split(' ').count() == 8 && line.split(' ').nth(1) == Some("503"))
    });
    assert!(!nginx.rotate_access_log(&mut stack, 1 << 20).unwrap(), "below the limit");
    assert!(nginx.rotate_access_log(&mut stack, 10).unwrap());
    let earlier = std::fs::read_to_string(nginx.access_log.with_extension("log.1")).unwrap();
    assert!(earlier.contains(" 503 "), "{earlier}");
    eventually("a new access log", || {
        // A worker of nginx may still write to the earlier file.
        through_nginx(&nginx, &upstream);
        std::fs::read_to_string(&nginx.access_log).is_ok_and(|log| log.contains(" 503 "))
    });
    assert!(launcher::cpu::process_tree_seconds(nginx.pid).is_some());
    let log = stack.log_path("nginx");
    std::fs::write(&log, "a line\n").unwrap();
    let length = || std::fs::metadata(&log).unwrap().len();
    stack.bound_log("nginx", 1 << 20).unwrap();
    assert!(length() > 0, "below the limit");
    stack.bound_log("nginx", 1).unwrap();
    assert_eq!(length(), 0);

    let (dir, pids) = (stack.dir().to_owned(), nginx_processes(stack.dir()));
    stack.stop().await.unwrap();
    assert!(!dir.exists() && reaped(redis.pid) && reaped(nginx.pid));
    eventually("nginx's workers have ended", || pids.iter().all(|process| !process.is_alive()));
}

/// In a victim, reports the stack's directory and waits to be killed.
async fn wait_if_victim(stack: &Stack) {
    if let Some(path) = std::env::var_os(VICTIM).map(PathBuf::from) {
        let draft = path.with_extension("draft");
        std::fs::write(&draft, stack.dir().to_str().unwrap()).unwrap();
        std::fs::rename(draft, path).unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
}

fn nginx_processes(dir: &Path) -> Vec<ProcessIdentity> {
    let members = found(dir).map(|found| found.processes).unwrap_or_default();
    members.into_iter().filter(|member| member.command == "nginx").map(|member| member.process).collect()
}

/// Sends a request through nginx to a server that answers 503. Returns what the server and the client received.
fn through_nginx(nginx: &nginx::Nginx, upstream: &TcpListener) -> (String, String) {
    let mut client = TcpStream::connect(("127.0.0.1", nginx.port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
        .write_all(
            b"GET /x?y=1 HTTP/1.1\r\nHost: h\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
        )
        .unwrap();
    let (mut server, _) = upstream.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = read_until(&mut server, "\r\n\r\n");
    server.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy").unwrap();
    (request, read_until(&mut client, "busy"))
}

fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).unwrap();
        assert!(read > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
    text
}

/// A copy of this binary that runs one test, until it is killed in `wait_if_victim`.
struct Victim {
    process: std::process::Child,
    stack: PathBuf,
}

impl Victim {
    fn start(scratch: &Path, test: &str) -> Self {
        let report = scratch.join("stack");
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(VICTIM, &report)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut victim = Self { process, stack: PathBuf::new() };
        eventually("the victim's stack", || report.exists());
        victim.stack = std::fs::read_to_string(report).unwrap().into();
        victim
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn a_killed_owner_leaves_no_process_and_its_directory_is_reaped() {
    if !testing::have(&[redis::PROGRAMS[0], nginx::PROGRAMS[0]]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut victim = Victim::start(scratch.path(), "redis_and_nginx_start_and_stop");
    let dir = victim.stack.clone();
    let before = found(&dir).unwrap();
    assert!(before.owner_alive);
    assert_eq!(before.processes.len(), 4, "redis, nginx and two workers: {before:?}");
    victim.kill();
    eventually("the kernel has ended all", || found(&dir).unwrap().processes.is_empty());
    assert!(before.processes.iter().all(|member| !member.process.is_alive()));

    let left = found(&dir).unwrap();
    assert!(left.is_orphaned() && dir.exists());
    assert_eq!(orphans::reap(&left).unwrap(), 0);
    assert!(!dir.exists() && found(&dir).is_none());
}

#[test]
fn workers_of_a_killed_nginx_are_found_and_reaped() {
    if !testing::have(&[redis::PROGRAMS[0], nginx::PROGRAMS[0]]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut victim = Victim::start(scratch.path(), "redis_and_nginx_start_and_stop");
    let dir = victim.stack.clone();
    // The one gap of death signals: a killed master cannot forward its own.
    let description = found(&dir).unwrap().description.unwrap();
    let master = description.children.iter().find(|child| child.name == "nginx").unwrap().process;
    assert!(master.signal(Signal::SIGKILL));
    victim.kill();
    eventually("only workers are left", || {
        nginx_processes(&dir).len() == 2 && found(&dir).unwrap().processes.len() == 2
    });

    let left = found(&dir).unwrap();
    assert!(left.is_orphaned());
    assert_eq!(orphans::stop(&left).unwrap(), 2);
    assert!(left.processes.iter().all(|member| !member.process.is_alive()) && !dir.exists());
}

#[tokio::test]
async fn prometheus_scrapes_and_knows_the_rules() {
    if !testing::have(prometheus::PROGRAMS) {
        return;
    }
    let mut stack = Stack::create("test-prometheus").unwrap();
    let jobs = vec![prometheus::ScrapeJob {
        name: "nobody".into(),
        targets: vec![("n-0".into(), "127.0.0.1:1".into())],
        path: prometheus::METRICS,
    }];
    let options = prometheus::Options { interval: Duration::from_millis(200), time_divisor: 1, jobs };
    let prometheus = prometheus::start(&mut stack, &options).await.unwrap();
    assert!(prometheus.version.starts_with("Prometheus 2"), "{}", prometheus.version);
    let port = prometheus.url.rsplit_once(':').unwrap().1.parse().unwrap();
    eventually("it has scraped itself", || {
        get(port, "/api/v1/query?query=up").contains(r#""job":"prometheus"},"value":"#)
    });
    let nobody = r#""instance":"n-0","job":"nobody"}"#;
    eventually("it has missed nobody", || get(port, "/api/v1/query?query=up").contains(nobody));
    assert!(get(port, "/api/v1/rules").contains("slo:availability_error:ratio_rate5m"));
    stack.stop().await.unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn mariadb_takes_root_without_password_over_tcp() {
    mariadb_answers("test-mariadb-a").await;
}

/// Parallel to the test above: two servers, and on a fresh machine a race for the template.
#[tokio::test]
async fn mariadb_beside_another() {
    mariadb_answers("test-mariadb-b").await;
}

async fn mariadb_answers(name: &str) {
    if !testing::have(&["mariadbd|mysqld"]) {
        return;
    }
    let mut stack = Stack::create(name).unwrap();
    let options = mariadb::Options { max_connections: 321, ..Default::default() };
    let server = mariadb::start(&mut stack, "db", &options).await.unwrap();
    assert!(server.version.starts_with("MariaDB 1") || server.version.starts_with("MySQL 8"), "{}", server.version);
    let answer = sql(server.port, "SELECT CONCAT(@@max_connections, ' ', @@port)");
    assert_eq!(answer, format!("321 {}", server.port));

    // Killed and restarted on the same data and port.
    sql(server.port, "CREATE DATABASE kept");
    sql(server.port, "CREATE TABLE kept.t (a INT) ENGINE=InnoDB");
    sql(server.port, "INSERT INTO kept.t VALUES (1)");
    stack.stop_child(server.child).await.unwrap();
    let options = mariadb::Options { port: Some(server.port), ..options };
    let again = mariadb::start(&mut stack, "db", &options).await.unwrap();
    assert_eq!(sql(again.port, "SELECT COUNT(*) FROM kept.t"), "1");
    let dir = stack.dir().to_owned();
    stack.stop().await.unwrap();
    assert!(reaped(again.pid) && !dir.exists());
}

/// With the package's own client: this crate needs no driver otherwise.
fn sql(port: u16, query: &str) -> String {
    let client = launcher::find_program(&["mariadb", "mysql"]).expect("the client comes with the server");
    let output = Command::new(client)
        .args(["--no-defaults", "--protocol=TCP", "-h127.0.0.1", "-uroot", "-N", "-B", "-e", query])
        .arg(format!("-P{port}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
