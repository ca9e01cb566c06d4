//! `experiment transports`: the same nodes send heartbeats over TCP and over UDP at the same time, through the same faults.

mod arrivals;
mod cost;
mod words;

use std::{
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use clap::{Args, FromArgMatches};
use faultproxy::{Fault, FaultSpec};
use heartbeat::{
    Nanos,
    clock::Clock,
    codec::{CodecId, Corpus, codec},
    message::Beat,
    reconnect::{Policy, State},
    sender::Pace,
    transport::{
        tcp::{Handle, Sender, Settings},
        udp::{ReliableSender, Retries},
    },
};
use report::{Section, Validity};
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::arrivals::{Arrival, Figures, figures};
use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};
use crate::{
    instruments::clock_watch::ClockWatch,
    stack::test_monitor::{TestMonitor, keys},
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "transports",
    about: "Heartbeats over TCP and over UDP under the same faults: how many arrive, how late, and which nodes would be suspected wrongly",
    examples: "Examples:
  ./testbed experiment transports          seven conditions (about 4 minutes)
  ./testbed experiment transports --quick
  ./testbed experiment transports --json | jq '.sections[0].measured.conditions[] | {condition, tcp: .tcp.arrived, udp: .udp.arrived}'",
    args: RunArgs::augment_args,
    run: |matches| Box::pin(async move { run(&RunArgs::from_arg_matches(&matches)?).await }),
};

const NODES: u64 = 100;
const INTERVAL: Duration = Duration::from_secs(1);
/// For a connection, and for the acknowledgement of a heartbeat over TCP.
const WAIT: Duration = Duration::from_millis(900);
/// Of each condition.
const LENGTH: Duration = Duration::from_secs(30);
const QUICK_LENGTH: Duration = Duration::from_secs(6);
const STALL: Duration = Duration::from_secs(4);
/// After a condition: heartbeats in flight arrive, and all are connected again.
const SETTLE: Duration = Duration::from_secs(3);
const SEED: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    Tcp,
    Udp,
}

/// One condition and the heartbeats in it.
#[derive(Debug, Serialize)]
pub struct Measured {
    condition: &'static str,
    seconds: f64,
    tcp: Figures,
    udp: Figures,
    #[serde(skip)]
    validity: Validity,
}

fn conditions() -> [(&'static str, Option<FaultSpec>); 7] {
    let loss = |pct| Some(Fault::Loss { pct, seed: SEED }.into());
    let stall = Fault::Stall.for_ms(STALL.as_millis() as u64);
    [
        ("no fault", None),
        ("5 % loss", loss(5.0)),
        ("20 % loss", loss(20.0)),
        ("50 % loss", loss(50.0)),
        ("150 ± 100 ms delay", Some(Fault::Latency { ms: 150.0, jitter_ms: 100.0 }.into())),
        ("4 s stall", Some(stall)),
        ("reset", Some(Fault::Reset.into())),
    ]
}

async fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let length = if args.quick { QUICK_LENGTH } else { LENGTH };
    let measured = under_faults(length).await?;
    let costs = cost::measure(args.quick).await?;
    let found = Found {
        what: format!(
            "{NODES} nodes send a heartbeat per second over TCP (one connection each, SO_KEEPALIVE, every heartbeat acknowledged) and over UDP \
             (sequence numbers, every heartbeat acknowledged, up to {} repetitions), at the same time and through one faultproxy; {} s of \
             each condition.",
            Retries::default().count,
            length.as_secs()
        ),
        verdicts: words::verdicts(&measured),
        validity: measured.iter().map(|one| (one.condition.to_owned(), one.validity.clone())).collect(),
        sections: vec![
            Section::new(
                "TCP and UDP under the same faults",
                "",
                serde_json::json!({ "conditions": measured, "costs": costs }),
            )
            .with_tables(words::tables(&measured, &costs)),
        ],
        remarks: vec![
            "A proxy between two connections cannot lose a TCP segment. Loss over TCP is modelled as the delay of a single segment's \
             retransmission, 200 ms doubled each time. UDP datagrams are lost."
                .into(),
        ],
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, args)
}

/// Shared by both transports while nodes send.
struct Field {
    clock: Clock,
    arrivals: Mutex<Vec<Arrival>>,
    /// Datagrams of beats that were sent.
    datagrams: AtomicU64,
    /// Connections that were closed.
    given_up: AtomicU64,
}

impl Field {
    fn note(&self, at: Nanos, beat: &Beat) {
        let (over, node) = match beat.node_id.split_once('-') {
            Some(("tcp", node)) => (Over::Tcp, node.parse()),
            Some((_, node)) => (Over::Udp, node.parse()),
            None => return,
        };
        // The senders are in this process and write the instant of the shared clock in place of the wall clock's.
        let arrival = Arrival { over, node: node.unwrap_or(0), sent: beat.timestamp, received: at };
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
    }

    fn beat(&self, over: &str, n: u64) -> Beat {
        Beat { node_id: format!("{over}-{n}"), sequence: 0, incarnation: 1, ..Corpus::held_out().beat(n) }
    }
}

async fn under_faults(length: Duration) -> anyhow::Result<Vec<Measured>> {
    let clock = Clock::start();
    let field = Arc::new(Field {
        clock,
        arrivals: Mutex::default(),
        datagrams: AtomicU64::new(0),
        given_up: AtomicU64::new(0),
    });
    let sink = {
        let field = Arc::clone(&field);
        Arc::new(move |at: Nanos, _: std::net::SocketAddr, beat: Beat| field.note(at, &beat))
    };
    let monitor = TestMonitor::with_sink(2 * NODES as usize, clock, Some(sink)).await?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let mut handles = Vec::new();
    for n in 0..NODES {
        handles.push(over_tcp(&monitor, &field, n, &tasks, &stop)?);
        over_udp(&monitor, &field, n, &tasks, &stop).await?;
    }
    tasks.close();
    let mut all = Vec::new();
    for (condition, fault) in conditions() {
        connected(&handles).await?;
        sleep(SETTLE).await;
        let (datagrams, given_up) = (field.datagrams.load(Relaxed), field.given_up.load(Relaxed));
        let watch = ClockWatch::start()?;
        let from = clock.now();
        if let Some(fault) = fault {
            monitor.proxy.add_fault(fault).await?;
        }
        sleep(length).await;
        let to = clock.now();
        let validity = watch.finish();
        let sent = field.datagrams.load(Relaxed) - datagrams;
        let given_up = field.given_up.load(Relaxed) - given_up;
        monitor.proxy.clear().await?;
        sleep(SETTLE).await;
        let arrivals = field.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of = |over| figures(arrivals.iter().filter(|arrival| arrival.over == over), NODES, from..to, INTERVAL);
        all.push(Measured {
            condition,
            seconds: length.as_secs_f64(),
            tcp: Figures { given_up: Some(given_up), ..of(Over::Tcp) },
            udp: Figures { datagrams: Some(sent), ..of(Over::Udp) },
            validity,
        });
    }
    stop.cancel();
    tasks.wait().await;
    monitor.stop().await?;
    Ok(all)
}

/// Waits until all TCP senders are connected; resumes a sender that waits for its next try.
async fn connected(handles: &[Handle]) -> anyhow::Result<()> {
    let wait = async {
        for handle in handles {
            let mut state = handle.state();
            while !matches!(*state.borrow_and_update(), State::Connected { .. }) {
                handle.resume();
                timeout(WAIT, state.changed()).await.ok();
            }
        }
    };
    timeout(Duration::from_secs(60), wait).await.map_err(|_| anyhow::anyhow!("not all TCP senders are connected"))
}

/// In the interval, so that the nodes do not all beat at once.
fn phase(n: u64) -> Duration {
    INTERVAL * n as u32 / NODES as u32
}

fn over_tcp(
    monitor: &TestMonitor,
    field: &Arc<Field>,
    n: u64,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Handle> {
    let settings = Settings {
        monitor: monitor.tcp.to_string(),
        keys: keys(),
        codec: codec(CodecId::Protobuf)?,
        interval: INTERVAL,
        wait: WAIT,
        policy: Policy::default(),
        seed: n,
    };
    let (sender, handle) = Sender::new(settings, field.clock);
    let (mut beat, clock) = (field.beat("tcp", n), field.clock);
    let beats = move || {
        beat.sequence += 1;
        beat.timestamp = clock.now();
        beat.clone()
    };
    let own = stop.clone();
    tasks.spawn(async move {
        sleep(phase(n)).await;
        sender.run(beats, own).await;
    });
    let (field, mut state) = (Arc::clone(field), handle.state());
    tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
        let mut was_connected = false;
        while state.changed().await.is_ok() {
            let is_connected = matches!(*state.borrow_and_update(), State::Connected { .. });
            field.given_up.fetch_add(u64::from(was_connected && !is_connected), Relaxed);
            was_connected = is_connected;
        }
    }));
    Ok(handle)
}

async fn over_udp(
    monitor: &TestMonitor,
    field: &Arc<Field>,
    n: u64,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut sender =
        ReliableSender::connect(monitor.udp, keys(), codec(CodecId::Protobuf)?, Retries::default()).await?;
    let field = Arc::clone(field);
    let mut beat = field.beat("udp", n);
    tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
        sleep(phase(n)).await;
        let pace = Pace::new(field.clock.now(), INTERVAL.as_nanos() as Nanos);
        let mut number = 0;
        loop {
            sleep_until(Instant::from_std(field.clock.instant(pace.planned(number)))).await;
            beat.sequence += 1;
            beat.timestamp = field.clock.now();
            let tries = match sender.send(&beat).await {
                Ok(acked) => acked.tries,
                Err(heartbeat::transport::udp::SendError::Unanswered { tries }) => tries,
                Err(_) => 0,
            };
            field.datagrams.fetch_add(u64::from(tries), Relaxed);
            number = pace.next(number, field.clock.now());
        }
    }));
    Ok(())
}
