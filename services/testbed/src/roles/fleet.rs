//! `serve fleet`: tens of thousands of heartbeat senders in this one process, and how well they keep their time.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use heartbeat::{
    auth::Keys,
    clock::Clock,
    codec::Corpus,
    message::Beat,
    sender::{BatchSender, BatchWriter, DATAGRAM_BYTES, DatagramSender, Fleet, SingleSender, Tick},
};
use launcher::cpu;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// Both sides have it; the monitor is the parent process, on loopback.
pub const SECRET: &[u8] = b"experiment";
/// Senders that have not heard of the end by then have a fault.
const STOP: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Beats are made and go nowhere.
    Ticks,
    /// Each in a datagram of its own.
    Single,
    /// Many to a datagram.
    Batched,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    #[serde(rename = "way")]
    pub mode: Mode,
    /// Loopback only.
    pub monitor: SocketAddr,
    /// 1..=1,000,000.
    pub senders: u32,
    /// 10..=60,000.
    pub interval_ms: u64,
    /// After the first interval, which is not measured.
    pub run_ms: u64,
    /// Where [`Outcome`] is written as JSON.
    pub result: PathBuf,
}

/// Of the measured part, unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub seconds: f64,
    pub beats: u64,
    /// Left out, as the next one was due as well.
    pub skipped: u64,
    /// From the planned instant to the beat.
    pub late_p50_ms: f64,
    pub late_p99_ms: f64,
    pub late_p999_ms: f64,
    pub late_max_ms: f64,
    pub cpu_s: f64,
    /// Resident memory that came with the senders.
    pub memory_bytes: f64,
    /// Until all senders were there.
    pub start_ms: f64,
    /// From the word to the end of the last one.
    pub stop_ms: f64,
    pub all_stopped: bool,
    /// Of the whole run.
    pub sent_beats: u64,
    pub datagrams: u64,
    /// Datagrams that the socket did not take.
    pub refused: u64,
}

/// Runs the plan of that file and writes what came of it.
///
/// # Errors
/// The plan is out of range, or no socket can be had.
pub async fn run(file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let plan: Plan = serde_json::from_str(&text).with_context(|| format!("{} is no plan", file.display()))?;
    let outcome = beat(&plan).await?;
    std::fs::write(&plan.result, serde_json::to_vec(&outcome)?)
        .with_context(|| format!("cannot write {}", plan.result.display()))
}

/// The figures of the ticks.
struct Record {
    measuring: AtomicBool,
    seen: Mutex<Seen>,
}

struct Seen {
    late_us: Histogram<u64>,
    skipped: u64,
    /// Of the whole run.
    beats: u64,
}

impl Record {
    fn note(&self, tick: Tick) {
        // A histogram that a panic left is whole.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.beats += 1;
        if self.measuring.load(Relaxed) {
            seen.late_us.saturating_record((tick.now - tick.planned) / 1_000);
            seen.skipped += tick.skipped;
        }
    }
}

async fn beat(plan: &Plan) -> anyhow::Result<Outcome> {
    ensure!(plan.monitor.ip().is_loopback(), "{} is no loopback address", plan.monitor);
    ensure!((1..=1_000_000).contains(&plan.senders), "senders must lie within 1 and 1000000");
    ensure!((10..=60_000).contains(&plan.interval_ms), "interval_ms must lie within 10 and 60000");
    let keys = Keys::new(SECRET);
    let (flushed, mut flushing) = (CancellationToken::new(), None);
    let outlet: Option<Arc<dyn DatagramSender>> = match plan.mode {
        Mode::Ticks => None,
        Mode::Single => Some(Arc::new(SingleSender::connect(plan.monitor, keys).await?)),
        Mode::Batched => {
            let writer = BatchWriter::new(keys, "fleet".into(), 1, DATAGRAM_BYTES);
            let outlet = BatchSender::connect(plan.monitor, writer).await?;
            let (flusher, flushed) = (Arc::clone(&outlet), flushed.clone());
            flushing = Some(tokio::spawn(async move { flusher.keep_flushing(flushed).await }));
            Some(outlet)
        }
    };
    let seen = Seen { late_us: Histogram::new_with_bounds(1, 600_000_000, 3)?, skipped: 0, beats: 0 };
    let record = Arc::new(Record { measuring: AtomicBool::new(false), seen: Mutex::new(seen) });
    let emit = {
        let (record, outlet) = (Arc::clone(&record), outlet.clone());
        Arc::new(move |beat: &Beat, tick: Tick| {
            record.note(tick);
            if let Some(outlet) = &outlet {
                outlet.send(beat);
            }
        })
    };

    let own = std::process::id();
    let memory = || cpu::rss_bytes(own).unwrap_or(0) as f64;
    let (before, start) = (memory(), Instant::now());
    let interval = Duration::from_millis(plan.interval_ms);
    let fleet =
        Fleet::spawn((0..u64::from(plan.senders)).map(|n| Corpus::held_out().beat(n)), interval, Clock::start(), emit);
    let start_ms = ms(start.elapsed());
    tokio::time::sleep(interval).await;
    let cpu_before = cpu::process_seconds(own).unwrap_or(0.0);
    record.measuring.store(true, Relaxed);
    let start = Instant::now();
    tokio::time::sleep(Duration::from_millis(plan.run_ms)).await;
    record.measuring.store(false, Relaxed);
    let seconds = start.elapsed().as_secs_f64();
    let cpu_s = cpu::process_seconds(own).unwrap_or(0.0) - cpu_before;
    let memory_bytes = memory() - before;
    let stopping = Instant::now();
    let all_stopped = fleet.stop(STOP).await;
    let stop_ms = ms(stopping.elapsed());
    flushed.cancel();
    if let Some(flushing) = flushing {
        flushing.await?;
    }

    let seen = record.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let late = |quantile| seen.late_us.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Outcome {
        seconds,
        beats: seen.late_us.len(),
        skipped: seen.skipped,
        late_p50_ms: late(0.5),
        late_p99_ms: late(0.99),
        late_p999_ms: late(0.999),
        late_max_ms: late(1.0),
        cpu_s,
        memory_bytes,
        start_ms,
        stop_ms,
        all_stopped,
        sent_beats: seen.beats,
        datagrams: outlet.as_ref().map_or(0, |outlet| outlet.counts().datagrams()),
        refused: outlet.as_ref().map_or(0, |outlet| outlet.counts().refused()),
    })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_beat_in_time_and_stop_at_a_word() {
        let monitor = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for mode in [Mode::Ticks, Mode::Single, Mode::Batched] {
            let plan = Plan {
                mode,
                monitor: monitor.local_addr().unwrap(),
                senders: 200,
                interval_ms: 100,
                run_ms: 250,
                result: PathBuf::from("unused"),
            };
            let outcome = beat(&plan).await.unwrap();
            assert!(outcome.all_stopped && outcome.beats >= 200 && outcome.sent_beats > outcome.beats, "{outcome:?}");
            assert_eq!(outcome.datagrams > 0, mode != Mode::Ticks, "{outcome:?}");
            let elsewhere = Plan { monitor: "192.0.2.1:80".parse().unwrap(), ..plan };
            assert!(beat(&elsewhere).await.unwrap_err().to_string().contains("loopback"));
        }
    }
}
