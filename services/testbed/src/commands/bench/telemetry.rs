//! `bench telemetry`: what traces cost the api, beside the same binary without them, and beside a bare handler with three spans.

use anyhow::bail;
use runtime::telemetry::OFF;

use super::{
    answering::{Answering, CPU_US, USERS},
    conditions,
};
use crate::{
    cli::BenchArgs,
    comparison::{self, Comparison, Ratio, Side},
    scrape::Reading,
};

const REPEATS: u8 = 7;
/// Processor time is counted in hundredths of a second: a run must have some hundred of them.
const RUN_MS: u64 = 4_000;
const WARM_MS: u64 = 1_000;
const CONNECTIONS: usize = 64;
/// Side and share of requests recorded. The first ratio, and so the answer, is that of nothing recorded.
const RATES: [(&str, f64); 3] = [("api, 0 % recorded", 0.0), ("api, 10 % recorded", 0.1), ("api, 100 % recorded", 1.0)];
const DROPPED: &str = "telemetry_spans_dropped_total";
const SENT: &str = "telemetry_spans_sent_total";

pub async fn run(args: BenchArgs) -> anyhow::Result<Comparison> {
    let mut bench = Answering::start(1 + RATES.len() as u32, true).await?;
    let receiver = bench.cluster.telemetry().endpoint.clone();
    bench.replica(0, "api, telemetry off", &[format!("telemetry.endpoint={OFF}")]).await?;
    let mut admins = Vec::new();
    for (n, (name, ratio)) in RATES.into_iter().enumerate() {
        let sets = [
            format!("telemetry.endpoint={receiver}"),
            format!("telemetry.sample_ratio={ratio}"),
            // On a busy machine one is slow now and then, and would be told of although nothing is recorded.
            "telemetry.retrospective=false".to_owned(),
            "telemetry.logs=false".to_owned(),
            "telemetry.log_ratio=0".to_owned(),
        ];
        bench.replica(1 + n, name, &sets).await?;
        admins.push(bench.cluster.admin(1 + n));
    }
    bench.bare("bare", &[]).await?;
    bench.bare("bare with three spans, 100 % recorded", &["--telemetry", &receiver]).await?;
    let ids = bench.fill().await?;
    let targets = bench.targets.len();
    for target in 0..targets {
        bench.load(target, CONNECTIONS, &ids, WARM_MS).await?;
    }
    let repeats = usize::from(args.repeats.unwrap_or(REPEATS));
    let runs =
        comparison::in_turns(targets, repeats, async |target| bench.load(target, CONNECTIONS, &ids, RUN_MS).await);
    let runs = runs.await?;
    let sides: Vec<Side> = bench.targets.iter().zip(&runs).map(|(target, runs)| Side::new(target.name, runs)).collect();
    let [off, api @ .., bare, bare_traced] = &sides[..] else { bail!("sides are missing") };
    let mut ratios: Vec<Ratio> = api.iter().map(|side| side.over(off, CPU_US)).collect();
    let rates = RATES.iter().zip(&ratios).map(|((_, rate), ratio)| (rate.to_string(), ratio.summary())).collect();
    ratios.push(bare_traced.over(bare, CPU_US));
    let what = format!(
        "CPU (user + system) a request for a cached list, of the answering process and its sender of spans; {CONNECTIONS} connections, each \
         with one request outstanding; {USERS} users, {RUN_MS} ms a run; two spans a recorded request"
    );
    let mut remarks = Vec::new();
    for ((name, _), admin) in RATES.into_iter().zip(admins) {
        let (sent, dropped) = counted(&admin).await?;
        remarks.push(format!("{name}: {sent} spans sent, {dropped} dropped."));
    }
    let conditions = conditions(&[("redis", &bench.cluster.redis.version)], remarks);
    bench.cluster.stack.stop().await?;
    Ok(Comparison { rates, ..Comparison::new("telemetry", what, sides, ratios, conditions)? })
}

/// Spans sent and dropped.
async fn counted(admin: &str) -> anyhow::Result<(f64, f64)> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let text = http.get(format!("{admin}/metrics")).send().await?.error_for_status()?.text().await?;
    let reading = Reading::of([text.as_str()]);
    Ok((reading.sum(SENT, &[]), reading.sum(DROPPED, &[])))
}
