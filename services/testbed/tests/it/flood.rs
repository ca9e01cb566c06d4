//! A monitor under a flood of senders without the key: its memory stays below its limit, and it still hears the workers.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use heartbeat::{
    auth::Keys,
    clock::{Clock, wall_ms},
    codec::Protobuf,
    frame,
    message::Beat,
    reconnect::{Policy, State},
    registry::Registration,
    transport::{http::AUTHENTICATED, tcp},
};
use launcher::{Spec, Stack, etcd, free_port, testing};
use monitor::MonitorConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const KEY: &str = "a key for tests";
/// Of the monitor's container: `mem_limit` in `deploy/compose/heartbeats.yaml`.
const LIMIT_BYTES: u64 = 64 << 20;
const DEADLINE: Duration = Duration::from_secs(120);
const INTERVAL: Duration = Duration::from_secs(1);
/// Unfinished frames over TCP, each in a connection of its own: short ones, and ones longer than a first frame may be.
const HALF_FRAMES: usize = 4_000;
/// Requests whose header does not end, and ballots whose body does not.
const HALF_HEADERS: usize = 600;
const HALF_BALLOTS: usize = 400;
/// Clients that send whole requests, one after the other.
const CLIENTS: usize = 16;
/// Beats over UDP that the monitor must acknowledge during the flood.
const BEATS: u32 = 8;

/// Connects, sends `bytes`, keeps the connection until the monitor closes it, and begins again.
async fn hold(target: SocketAddr, bytes: Arc<[u8]>, sent: Arc<AtomicU64>) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(target).await
            && stream.write_all(&bytes).await.is_ok()
        {
            sent.fetch_add(1, Relaxed);
            while stream.read(&mut [0; 1_024]).await.is_ok_and(|length| length > 0) {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Sends one request after the other on new connections.
async fn request(target: SocketAddr, request: &'static str, sent: Arc<AtomicU64>) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(target).await {
            stream.write_all(request.as_bytes()).await.ok();
            while stream.read(&mut [0; 4_096]).await.is_ok_and(|length| length > 0) {}
            sent.fetch_add(1, Relaxed);
        }
        tokio::task::yield_now().await;
    }
}

async fn garbage(target: SocketAddr, sent: Arc<AtomicU64>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // The header of a frame, and no MAC.
    let datagram = [0xb1, 2, 1, 1].into_iter().cycle().take(1_200).collect::<Vec<u8>>();
    loop {
        for _ in 0..20 {
            socket.send_to(&datagram, target).await.ok();
            sent.fetch_add(1, Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Monitor {
    pid: u32,
    config: MonitorConfig,
    http: reqwest::Client,
}

impl Monitor {
    async fn start(stack: &mut Stack) -> Self {
        let etcd = etcd::start(stack, &etcd::Options::default()).await.unwrap();
        let mut config = MonitorConfig::new("m0");
        let free = || SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        config.node.key = KEY.into();
        (config.listen.http, config.listen.tcp, config.listen.udp, config.listen.admin) =
            (free(), free(), free(), free());
        config.listen.rpc = free();
        config.registry.etcd = vec![etcd.url.clone()];
        config.detect.interval_ms = INTERVAL.as_millis() as u64;
        let file = stack.child_dir("m0").unwrap().join("config.toml");
        std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
        let spec = Spec::new("m0", env!("CARGO_BIN_EXE_testbed")).args(["serve", "monitor", "m0", "--config"]);
        let child = stack.spawn(spec.args([file])).unwrap();
        let http = runtime::http::plain().timeout(Duration::from_secs(5)).build().unwrap();
        let ready = format!("http://{}/readyz", config.listen.admin);
        let client = http.clone();
        let is_ready = move || {
            let get = client.get(&ready).send();
            async { get.await.is_ok_and(|answer| answer.status().is_success()) }
        };
        stack.wait_ready(child, DEADLINE, is_ready).await.unwrap();
        Self { pid: stack.pid(child).unwrap(), config, http }
    }

    /// Memory of the process without the pages of its program, in bytes.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1_024
    }

    async fn register(&self, id: &str) -> bool {
        let (http, udp) = ("127.0.0.1:1".to_owned(), "127.0.0.1:1".to_owned());
        let node = Registration { id: id.into(), incarnation: wall_ms(), process: 1, http, udp, leaving: false };
        let sealed = frame::sign_control(&keys(), &node).unwrap();
        let url = format!("http://{}/register", self.config.listen.http);
        let post = self.http.post(url).header("content-type", AUTHENTICATED).body(sealed);
        post.send().await.is_ok_and(|answer| answer.status().is_success())
    }
}

fn keys() -> Keys {
    Keys::new(KEY.as_bytes())
}

/// Sends beats over TCP. Whether the monitor has acknowledged one in time.
async fn is_connected(target: SocketAddr, id: &str, stop: CancellationToken) -> bool {
    let settings = tcp::Settings {
        monitor: target.to_string(),
        keys: keys(),
        codec: Box::new(Protobuf),
        interval: INTERVAL,
        wait: INTERVAL,
        policy: Policy { base: 100_000_000, cap: 1_000_000_000, tries: 1_000, ..Policy::default() },
        seed: 1,
    };
    let (sender, handle) = tcp::Sender::new(settings, Clock::start());
    let (mut beat, incarnation) = (Beat { node_id: id.to_owned(), ..Beat::default() }, wall_ms());
    let next = move || {
        (beat.incarnation, beat.sequence) = (incarnation, beat.sequence + 1);
        beat.clone()
    };
    tokio::spawn(sender.run(next, stop));
    let mut state = handle.state();
    timeout(DEADLINE, state.wait_for(|state| matches!(state, State::Connected { .. }))).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_without_the_key_neither_fills_a_monitor_nor_hides_the_workers() {
    if !testing::have(&["etcd"]) {
        return;
    }
    launcher::raise_nofile_limit().unwrap();
    let mut stack = Stack::create("test-flood").unwrap();
    let monitor = Monitor::start(&mut stack).await;
    let (listen, stop) = (monitor.config.listen.clone(), CancellationToken::new());
    let before = monitor.memory();
    assert!(is_connected(listen.tcp, "early", stop.clone()).await, "beats over TCP before the flood");

    let [frames, requests, datagrams] = std::array::from_fn(|_| Arc::new(AtomicU64::new(0)));
    let mut flood = JoinSet::new();
    let half_frame = |length: u16| -> Arc<[u8]> {
        length.to_be_bytes().into_iter().chain(std::iter::repeat_n(0xb1, usize::from(length) - 100)).collect()
    };
    let half_frames = [half_frame(8_000), half_frame(u16::MAX)];
    let header = format!("GET /status HTTP/1.1\r\nhost: m\r\nx-fill: {}", "x".repeat(200_000));
    let ballot =
        format!("POST /ballot HTTP/1.1\r\nhost: m\r\ncontent-length: 1200000\r\n\r\n{}", "x".repeat(1_100_000));
    for half_frame in half_frames.iter().cycle().take(HALF_FRAMES) {
        flood.spawn(hold(listen.tcp, Arc::clone(half_frame), Arc::clone(&frames)));
    }
    for (count, bytes) in [(HALF_HEADERS, header), (HALF_BALLOTS, ballot)] {
        let bytes: Arc<[u8]> = bytes.into_bytes().into();
        for _ in 0..count {
            flood.spawn(hold(listen.http, Arc::clone(&bytes), Arc::clone(&requests)));
        }
    }
    for _ in 0..CLIENTS {
        let status = "GET /status HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n";
        let registration =
            "POST /register HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-length: 8\r\n\r\ngarbage!";
        flood.spawn(request(listen.http, status, Arc::clone(&requests)));
        flood.spawn(request(listen.http, registration, Arc::clone(&requests)));
    }
    flood.spawn(garbage(listen.udp, Arc::clone(&datagrams)));

    // Workers whose beats arrive over UDP and, from a new connection, over TCP; and a registration.
    let (udp, incarnation) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), wall_ms());
    udp.connect(listen.udp).await.unwrap();
    let late = tokio::spawn(is_connected(listen.tcp, "late", stop.clone()));
    let (mut sequence, mut heard, mut most, mut is_registered, begun) = (0, 0, 0, false, Instant::now());
    while heard < BEATS || !is_registered || !late.is_finished() || frames.load(Relaxed) < HALF_FRAMES as u64 / 8 {
        assert!(
            begun.elapsed() < DEADLINE,
            "{heard} beats heard, registered: {is_registered}, TCP: {}",
            late.is_finished()
        );
        sequence += 1;
        let beat = Beat { node_id: "w".into(), sequence, incarnation, ..Beat::default() };
        let mut datagram = Vec::new();
        frame::sign_beat(&keys(), &mut Protobuf, &beat, true, &mut datagram).unwrap();
        udp.send(&datagram).await.unwrap();
        is_registered = is_registered || monitor.register("w").await;
        let mut answer = [0; 256];
        if let Ok(Ok(length)) = timeout(INTERVAL / 4, udp.recv(&mut answer)).await {
            heard += u32::from(frame::verify_ack(&keys(), &answer[..length]).is_some());
        }
        most = most.max(monitor.memory());
        tokio::time::sleep(INTERVAL / 4).await;
    }
    assert!(late.await.unwrap(), "a worker that connects during the flood is heard");
    for _ in 0..8 {
        most = most.max(monitor.memory());
        tokio::time::sleep(INTERVAL / 4).await;
    }
    let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let count = |sent: &AtomicU64| sent.load(Relaxed);
    println!(
        "{:.1} s of {} half frames, {} requests, {} datagrams: memory {:.1} MiB before, at most {:.1} MiB of {:.0}; {heard} beats over UDP acknowledged",
        begun.elapsed().as_secs_f64(),
        count(&frames),
        count(&requests),
        count(&datagrams),
        mb(before),
        mb(most),
        mb(LIMIT_BYTES),
    );
    flood.shutdown().await;
    stop.cancel();
    stack.stop().await.unwrap();
    assert!(most < LIMIT_BYTES, "{:.1} MiB", mb(most));
}
