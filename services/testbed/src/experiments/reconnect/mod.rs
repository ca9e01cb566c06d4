//! `experiment reconnect`: the monitor of many senders goes away. In one of two runs it comes back while they still try.

use std::{
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use anyhow::ensure;
use clap::{Args, FromArgMatches};
use faultproxy::Fault;
use heartbeat::{
    clock::Clock,
    codec::{CodecId, Corpus, codec},
    reconnect::{Policy, State},
    transport::tcp::{Handle, Sender, Settings},
};
use report::{Section, Table, Verdict};
use serde::Serialize;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};
use crate::instruments::{clock_watch::ClockWatch, comparison::Spread};
use crate::stack::test_monitor::{TestMonitor, keys};

pub const EXPERIMENT: Experiment = Experiment {
    name: "reconnect",
    about: "A monitor that is away: delays between tries, silent period, alarm, and the way back",
    examples: "Examples:
  ./testbed experiment reconnect           the article's delays (about 2 minutes)
  ./testbed experiment reconnect --quick   all delays a tenth
  ./testbed experiment reconnect --json | jq '.sections[0].measured.delays_s[].median'",
    args: RunArgs::augment_args,
    run: |matches| Box::pin(async move { run(&RunArgs::from_arg_matches(&matches)?).await }),
};

const SENDERS: u64 = 50;
/// Between two heartbeats of a sender, and the longest wait for an acknowledgement.
const INTERVAL: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_millis(500);
/// How long the monitor is away in the run in which it comes back.
const AWAY: Duration = Duration::from_secs(10);
/// With --quick, all of these are a tenth.
const QUICK: u32 = 10;
/// Allowed lateness of a delay: the runtime's timer, and a busy machine.
const LATE_S: f64 = 0.25;
/// The article's delays; it has a fifth try and does not say after how long.
const ARTICLE_S: [&str; 5] = ["1", "2", "4", "8", "fifth try"];

/// The states of one sender, in seconds.
#[derive(Debug, Clone, Default)]
struct Timeline {
    /// Beats in a row without an answer before the connection was given up.
    failures: u32,
    /// By try, from 1.
    delays: Vec<f64>,
    silence: Option<f64>,
    stopped: bool,
}

#[derive(Debug, Serialize)]
struct Measured {
    senders: u64,
    max_failures: Spread,
    /// Delay before each try, seconds.
    delays_s: Vec<Spread>,
    silence_s: Spread,
    stopped: usize,
    /// Heartbeats that reached the monitor between the alarm and the contact, when the network was up again.
    beats_while_stopped: u64,
    /// From the contact to a beat that was answered, milliseconds.
    resumed_ms: Spread,
    /// In the run in which the monitor comes back: from then to a beat that was answered, seconds.
    back_s: Spread,
}

async fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let scale = if args.quick { QUICK } else { 1 };
    let watch = ClockWatch::start()?;
    let (mut measured, back_s) = tokio::try_join!(for_good(scale), comes_back(scale))?;
    measured.back_s = back_s;
    let validity = watch.finish();
    let policy = policy(scale);
    let found = Found {
        what: format!(
            "{SENDERS} senders over TCP, a heartbeat every {} ms, each acknowledged; then nothing passes between them and the monitor. Delays as in \
             the article{}, with up to {:.0} % jitter; at most {} tries.",
            (INTERVAL / scale).as_millis(),
            if scale > 1 { ", all divided by ten" } else { "" },
            100.0 * policy.jitter,
            policy.tries
        ),
        sections: vec![
            Section::new("Tries, silence and alarm", "", serde_json::to_value(&measured)?)
                .with_tables(vec![table(&measured, &policy)]),
        ],
        verdicts: verdicts(&measured, &policy).into_iter().map(|one| one.within(&validity)).collect(),
        validity: [("senders".to_owned(), validity)].into(),
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, args)
}

fn policy(scale: u32) -> Policy {
    let policy = Policy::default();
    let scaled = |nanos| nanos / u64::from(scale);
    Policy { base: scaled(policy.base), cap: scaled(policy.cap), silence: scaled(policy.silence), ..policy }
}

/// Senders behind a link to a monitor.
struct Senders {
    monitor: TestMonitor,
    handles: Vec<Handle>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Senders {
    /// All of them connected.
    async fn start(scale: u32) -> anyhow::Result<Self> {
        let monitor = TestMonitor::start(SENDERS as usize).await?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut handles = Vec::new();
        for n in 0..SENDERS {
            let settings = Settings {
                monitor: monitor.tcp.to_string(),
                keys: keys(),
                codec: codec(CodecId::Protobuf)?,
                interval: INTERVAL / scale,
                wait: WAIT / scale,
                policy: policy(scale),
                seed: n,
            };
            let (sender, handle) = Sender::new(settings, Clock::start());
            let mut beat = Corpus::held_out().beat(n);
            let beats = move || {
                beat.sequence += 1;
                beat.clone()
            };
            tasks.spawn(sender.run(beats, stop.clone()));
            handles.push(handle);
        }
        tasks.close();
        let senders = Self { monitor, handles, tasks, stop };
        senders.connected().await?;
        Ok(senders)
    }

    /// Waits until all are; answers the seconds until each was.
    async fn connected(&self) -> anyhow::Result<Vec<f64>> {
        let start = Instant::now();
        let waits = self.handles.iter().map(|handle| async move {
            let mut state = handle.state();
            state.wait_for(|now| matches!(now, State::Connected { .. })).await.map(|_| start.elapsed().as_secs_f64())
        });
        let patience = Duration::from_secs(120);
        let all = tokio::time::timeout(patience, futures::future::try_join_all(waits)).await;
        all.map_err(|_| anyhow::anyhow!("not all senders are connected after {} s", patience.as_secs()))?
            .map_err(Into::into)
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.tasks.wait().await;
        self.monitor.stop().await
    }
}

/// The monitor stays away until all senders have stopped. Then it is back, and later it contacts them.
async fn for_good(scale: u32) -> anyhow::Result<Measured> {
    let senders = Senders::start(scale).await?;
    let watching: Vec<_> = senders.handles.iter().map(|handle| tokio::spawn(timeline(handle.clone()))).collect();
    senders.monitor.proxy.add_fault(Fault::Stall).await?;
    let mut timelines = Vec::new();
    for timeline in watching {
        timelines.push(timeline.await?);
    }
    senders.monitor.proxy.clear().await?;
    let before = senders.monitor.ingest.counts().accepted();
    // Bytes in flight arrive now. A sender that still sent would be heard within several intervals.
    tokio::time::sleep(3 * INTERVAL / scale).await;
    let late = senders.monitor.ingest.counts().accepted();
    tokio::time::sleep(3 * INTERVAL / scale).await;
    let beats_while_stopped = senders.monitor.ingest.counts().accepted() - late;
    ensure!(late >= before, "counts fell");
    for handle in &senders.handles {
        handle.resume();
    }
    let resumed = senders.connected().await?;
    senders.stop().await?;

    let tries = timelines.iter().map(|life| life.delays.len()).max().unwrap_or(0);
    let delays_s =
        (0..tries).map(|n| Spread::of(timelines.iter().filter_map(|life| life.delays.get(n).copied()).collect()));
    Ok(Measured {
        senders: SENDERS,
        max_failures: Spread::of(timelines.iter().map(|life| f64::from(life.failures)).collect()),
        delays_s: delays_s.collect(),
        silence_s: Spread::of(timelines.iter().filter_map(|life| life.silence).collect()),
        stopped: timelines.iter().filter(|life| life.stopped).count(),
        beats_while_stopped,
        resumed_ms: Spread::of(resumed.iter().map(|seconds| 1e3 * seconds).collect()),
        back_s: Spread::of(Vec::new()),
    })
}

async fn comes_back(scale: u32) -> anyhow::Result<Spread> {
    let senders = Senders::start(scale).await?;
    senders.monitor.proxy.add_fault(Fault::Stall).await?;
    tokio::time::sleep(AWAY / scale).await;
    senders.monitor.proxy.clear().await?;
    let back = senders.connected().await?;
    senders.stop().await?;
    Ok(Spread::of(back))
}

/// From the first failure to the alarm.
async fn timeline(handle: Handle) -> Timeline {
    let mut states = handle.state();
    let mut life = Timeline::default();
    let mut since = Instant::now();
    let mut before = *states.borrow_and_update();
    while !life.stopped && states.changed().await.is_ok() {
        let now = *states.borrow_and_update();
        let lasted = since.elapsed().as_secs_f64();
        match (before, now) {
            (State::Connected { failures }, State::Waiting { .. }) => life.failures = failures + 1,
            (State::Waiting { .. }, State::Trying { .. }) => life.delays.push(lasted),
            (State::Silent { .. }, State::Stopped) => (life.silence, life.stopped) = (Some(lasted), true),
            _ => {}
        }
        (before, since) = (now, Instant::now());
    }
    life
}

fn table(measured: &Measured, policy: &Policy) -> Table {
    let row = |name: &str, article: &str, spread: &Spread| {
        let cells = [spread.median, spread.min, spread.max].map(|value| format!("{value:.2}"));
        [name.to_owned(), article.to_owned()].into_iter().chain(cells).collect::<Vec<_>>()
    };
    let mut rows =
        vec![row("unacknowledged heartbeats before the connection is closed", "MAX_FAILURES", &measured.max_failures)];
    for (n, (spread, article)) in measured.delays_s.iter().zip(ARTICLE_S).enumerate() {
        rows.push(row(&format!("delay before try {}, s", n + 1), article, spread));
    }
    rows.push(row("silent period, s", "after 5 tries", &measured.silence_s));
    let stopped = Spread::of(vec![measured.stopped as f64]);
    rows.push(row(&format!("stopped with an alarm, of {}", measured.senders), "alarm and stop", &stopped));
    rows.push(row("contact by the monitor: sends again after, ms", "", &measured.resumed_ms));
    let away = format!("monitor back after the time of {} tries: sends again after, s", policy.tries - 2);
    rows.push(row(&away, "", &measured.back_s));
    Table::new(
        "From the last acknowledgement to the alarm, and back",
        "Median, minimum and maximum over all senders. A contact by the monitor restarts the tries from any state.",
        &["", "article", "median", "minimum", "maximum"],
        rows,
    )
}

fn verdicts(measured: &Measured, policy: &Policy) -> Vec<Verdict> {
    let planned = |n: usize| policy.delay(n as u32 + 1) as f64 / 1e9;
    let within = |(n, spread): (usize, &Spread)| {
        spread.min >= planned(n) && spread.max <= planned(n) * (1.0 + policy.jitter) + LATE_S
    };
    let delays = measured.delays_s.len() == policy.tries as usize && measured.delays_s.iter().enumerate().all(within);
    let most: Vec<String> = measured.delays_s.iter().map(|spread| format!("{:.2}", spread.max)).collect();
    let wanted: Vec<String> = (0..policy.tries as usize).map(|n| planned(n).to_string()).collect();
    let all = measured.senders as usize;
    vec![
        Verdict::new(
            "delays",
            format!("{} s, at most {:.0} % more", wanted.join(", "), 100.0 * policy.jitter),
            format!("at most {} s", most.join(", ")),
            delays,
            &format!("{LATE_S} s allowed for the machine"),
        ),
        Verdict::new(
            "alarm and stop",
            format!("{all} senders, then silence"),
            format!("{} stopped, {} heartbeats after it", measured.stopped, measured.beats_while_stopped),
            measured.stopped == all && measured.beats_while_stopped == 0,
            "",
        ),
        Verdict::new(
            "a contact restarts all",
            format!("{all} senders"),
            format!("{} senders, the last after {:.0} ms", measured.resumed_ms.runs.len(), measured.resumed_ms.max),
            measured.resumed_ms.runs.len() == all,
            "no sender stays silent",
        ),
    ]
}
