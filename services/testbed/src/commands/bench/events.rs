//! `bench events`: CPU time of a worker per event, beside a loop that only inserts the same rows and one that only decodes.

mod servers;

use super::conditions;
use crate::{
    cli::BenchArgs,
    instruments::comparison::{self, Comparand, Comparison, Figures, Reference, Side},
};
use servers::{Lists, Servers, stage_figure};

const REPEATS: u8 = 5;
/// Of each run. Of those, the first twentieth is not measured: connections are opened and the model is loaded meanwhile.
const EVENTS: u64 = if cfg!(debug_assertions) { 20_000 } else { 400_000 };
pub(super) const PER_CPU_S: &str = "events_per_cpu_s";
/// The worker over the loop that inserts, in events per second of CPU time.
const LEAST_RATIO: f64 = 0.4;
const SIDES: [&str; 4] = ["worker", "worker without lists", "inserts only", "decodes only"];

pub async fn run(args: BenchArgs) -> anyhow::Result<Comparison> {
    let mut servers = Servers::start(EVENTS).await?;
    let repeats = usize::from(args.repeat.unwrap_or(REPEATS));
    let runs = comparison::in_turns(SIDES.len(), repeats, async |side| match side {
        0 => servers.worker(Lists::Published).await,
        1 => servers.worker(Lists::Off).await,
        2 => servers.inserts().await,
        _ => servers.decodes().await,
    });
    let runs = runs.await?;
    let sides: Vec<Side> = SIDES.iter().zip(&runs).map(|(name, runs)| Side::new(name, runs)).collect();
    let over = |side: usize, other: usize| sides[side].over(&sides[other], PER_CPU_S);
    let ratios = vec![over(0, 2), over(1, 2), over(2, 3)];
    let what = format!(
        "events per CPU second (user + system) of the consuming process; {EVENTS} events of the generator in 16 partitions, consumed from \
         the start into empty tables, in batches of at most 500. The worker: fence, duplicates, features, log, lists. Inserts only: the \
         same rows of the log in packets of the same size"
    );
    let bound = Reference::AtLeast(LEAST_RATIO);
    let ratio = &ratios[0];
    let mark = Comparand {
        side: format!("{} / {}", ratio.of, ratio.to),
        figure: ratio.figure,
        measured: ratio.spread.median,
        beside: bound,
        met: Some(ratio.spread.median >= LEAST_RATIO),
    };
    let remarks = vec![limit(&runs[0])];
    let versions = servers.versions();
    let conditions =
        conditions(&versions.iter().map(|(name, version)| (*name, version.as_str())).collect::<Vec<_>>(), remarks);
    servers.stop().await?;
    Ok(Comparison::new("events", what, sides, ratios, conditions)?.beside(vec![mark]))
}

/// The stage of the worker that takes the longest, in words. The 16 partitions take turns on the worker's one thread, so the time of a
/// stage includes waiting.
fn limit(runs: &[Figures]) -> String {
    let mean = |figure| runs.iter().filter_map(|run| run.get(figure)).sum::<f64>() / runs.len().max(1) as f64;
    let stages = servers::STAGES.map(|stage| (stage, mean(stage_figure(stage))));
    let all: f64 = stages.iter().map(|(_, us)| us).sum();
    let longest = stages.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("none", 0.0));
    format!(
        "The worker's longest stage is {}: {:.1} of {all:.1} µs an event, waits included, in batches of {:.0} events. CPU an event: worker \
         {:.1} µs, MySQL {:.1} µs, Redis {:.1} µs.",
        longest.0,
        longest.1,
        mean("events_per_batch"),
        mean("cpu_us_per_event"),
        mean("mysql_cpu_us_per_event"),
        mean("redis_cpu_us_per_event")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stage_is_named() {
        let run = |write| {
            let stages = servers::STAGES.map(|stage| (stage_figure(stage), if stage == "write" { write } else { 5.0 }));
            let cpu = [("cpu_us_per_event", 20.0), ("mysql_cpu_us_per_event", 40.0), ("redis_cpu_us_per_event", 2.0)];
            let batch = [("events_per_batch", 400.0)];
            Figures::from_iter(stages.into_iter().chain(cpu).chain(batch))
        };
        let text = limit(&[run(40.0), run(50.0)]);
        assert!(text.starts_with("The worker's longest stage is write: 45.0 of 60.0 µs an event"), "{text}");
        assert!(text.contains("in batches of 400 events"), "{text}");
        assert!(text.ends_with("worker 20.0 µs, MySQL 40.0 µs, Redis 2.0 µs."), "{text}");
    }
}
