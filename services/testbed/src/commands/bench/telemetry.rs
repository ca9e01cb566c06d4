//! `bench telemetry`: what traces cost the api, beside the same binary without them, and beside a bare handler with three spans.

use anyhow::bail;
use runtime::telemetry::OFF;

use super::{
    answering::{Answering, CPU_US, USERS},
    conditions,
};
use crate::{
    cli::BenchArgs,
    instruments::comparison::{self, Comparison, Ratio, Side},
    instruments::scrape::Reading,
};

/// The machine's own speed changes by ten percent within seconds: many short pairs show what few long ones do not.
const REPEATS: u8 = 28;
const RUN_MS: u64 = 1_000;
/// Of fresh processes each: where loader and allocator have put things makes one some percent faster than its twin, for as long as it lives.
const ROUNDS: usize = 4;
const WARM_MS: u64 = 1_000;
const CONNECTIONS: usize = 64;
/// Side and share of requests recorded. The first ratio, and so the answer, is that of nothing recorded.
const RATES: [(&str, f64); 3] = [("api, 0 % recorded", 0.0), ("api, 10 % recorded", 0.1), ("api, 100 % recorded", 1.0)];
/// By number of the target: those that differ least are measured next to each other.
const ORDER: [usize; 6] = [1, 0, 2, 3, 4, 5];
const DROPPED: &str = "telemetry_spans_dropped_total";
const SENT: &str = "telemetry_spans_sent_total";

pub async fn run(args: BenchArgs) -> anyhow::Result<Comparison> {
    let mut bench = Answering::start(1 + RATES.len() as u32).await?;
    let receiver = bench.sink().await?;
    let repeats = usize::from(args.repeat.unwrap_or(REPEATS));
    let rounds = ROUNDS.min(repeats);
    let (mut runs, mut counts) = (vec![Vec::new(); ORDER.len()], [(0.0, 0.0); RATES.len()]);
    let mut ids = Vec::new();
    for round in 0..rounds {
        bench.stop_targets().await?;
        start(&mut bench, &receiver).await?;
        if round == 0 {
            ids = bench.fill().await?;
        }
        for target in ORDER {
            bench.load(target, CONNECTIONS, &ids, WARM_MS).await?;
        }
        let repeats = (repeats + round) / rounds;
        let of_round = comparison::in_turns(ORDER.len(), repeats, async |side| {
            bench.load(ORDER[side], CONNECTIONS, &ids, RUN_MS).await
        });
        for (target, figures) in ORDER.into_iter().zip(of_round.await?) {
            runs[target].extend(figures);
        }
        for (n, count) in counts.iter_mut().enumerate() {
            let (sent, dropped) = counted(&bench.cluster.admin(1 + n)).await?;
            *count = (count.0 + sent, count.1 + dropped);
        }
    }
    let sides: Vec<Side> = bench.targets.iter().zip(&runs).map(|(target, runs)| Side::new(target.name, runs)).collect();
    let [off, api @ .., bare, bare_traced] = &sides[..] else { bail!("sides are missing") };
    let mut ratios: Vec<Ratio> = api.iter().map(|side| side.over(off, CPU_US)).collect();
    let rates = RATES.iter().zip(&ratios).map(|((_, rate), ratio)| (rate.to_string(), ratio.summary())).collect();
    ratios.push(bare_traced.over(bare, CPU_US));
    let what = format!(
        "CPU (user + system) a request for a cached list, of the answering process and its sender of spans; {CONNECTIONS} connections, each \
         with one request outstanding; {USERS} users, {RUN_MS} ms a run; two spans a recorded request; fresh processes {rounds} times"
    );
    let remark = |((name, _), (sent, dropped)): (&(&str, f64), (f64, f64))| {
        format!("{name}: {sent} spans sent, {dropped} dropped.")
    };
    let remarks = RATES.iter().zip(counts).map(remark).collect();
    let conditions = conditions(&[("redis", &bench.cluster.redis.version)], remarks);
    bench.cluster.stack.stop().await?;
    Ok(Comparison { rates, ..Comparison::new("telemetry", what, sides, ratios, conditions)? })
}

/// Who is measured: the api without telemetry, at each rate, and the bare handler without and with it.
async fn start(bench: &mut Answering, receiver: &str) -> anyhow::Result<()> {
    bench.replica(0, "api, telemetry off", &[format!("telemetry.endpoint={OFF}")]).await?;
    for (n, (name, ratio)) in RATES.into_iter().enumerate() {
        let sets = [
            format!("telemetry.endpoint={receiver}"),
            format!("telemetry.sample_ratio={ratio}"),
            // On a busy machine a request is slow now and then, and would be recorded although nothing is sampled.
            "telemetry.retrospective=false".to_owned(),
            "telemetry.logs=false".to_owned(),
            "telemetry.log_ratio=0".to_owned(),
        ];
        bench.replica(1 + n, name, &sets).await?;
    }
    bench.bare("bare", &[]).await?;
    bench.bare("bare with three spans, 100 % recorded", &["--telemetry", receiver]).await
}

/// Spans sent and dropped.
async fn counted(admin: &str) -> anyhow::Result<(f64, f64)> {
    let http = runtime::http::plain().build()?;
    let text = http.get(format!("{admin}/metrics")).send().await?.error_for_status()?.text().await?;
    let reading = Reading::of([text.as_str()]);
    Ok((reading.sum(SENT, &[]), reading.sum(DROPPED, &[])))
}
