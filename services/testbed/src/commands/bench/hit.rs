//! `bench hit`: a cache hit of the api beside the least that axum and Redis can do, and beside its own in-process cache.
//!
//! At several concurrencies: the more requests are under way at the same time, the more of them share a system call to Redis, and the
//! less a look into Redis costs each.

use super::{
    answering::{Answering, PER_CPU_S, USERS},
    conditions,
};
use crate::{
    cli::BenchArgs,
    instruments::comparison::{self, Comparison, Figures, Side},
};

const REPEATS: u8 = 7;
const RUN_MS: u64 = 2_000;
/// Buffers, connections and branch predictors of all sides wake up.
const WARM_MS: u64 = 1_000;
/// Each with one request outstanding, always. The first is the one that the first ratio is of: a replica that answers in 3 ms what eight of
/// them are asked at 4000/s has fewer than two requests under way.
const CONNECTIONS: [usize; 3] = [8, 64, 1];
const LOCAL_CACHE: &str = "cache.local_ms=1000";

pub async fn run(args: BenchArgs) -> anyhow::Result<Comparison> {
    let mut bench = Answering::start(2).await?;
    bench.replica(0, "api", &[]).await?;
    bench.bare("bare", &[]).await?;
    bench.replica(1, "api with in-process cache", &[LOCAL_CACHE.to_owned()]).await?;
    let ids = bench.fill().await?;
    let targets = bench.targets.len();
    for target in 0..targets {
        bench.load(target, CONNECTIONS[0], &ids, WARM_MS).await?;
    }
    let repeats = usize::from(args.repeat.unwrap_or(REPEATS));
    // Those that are compared, the targets at one concurrency, follow each other.
    let loads: Vec<(usize, usize)> =
        CONNECTIONS.into_iter().flat_map(|connections| (0..targets).map(move |target| (target, connections))).collect();
    let runs = comparison::in_turns(loads.len(), repeats, async |side| {
        let (target, connections) = loads[side];
        bench.load(target, connections, &ids, RUN_MS).await
    });
    let runs = runs.await?;
    let side = |((target, connections), runs): (&(usize, usize), &Vec<Figures>)| {
        Side::new(&format!("{} × {connections}", bench.targets[*target].name), runs)
    };
    let sides: Vec<Side> = loads.iter().zip(&runs).map(side).collect();
    let of_concurrency = |sides: &[Side]| [sides[0].over(&sides[1], PER_CPU_S), sides[2].over(&sides[0], PER_CPU_S)];
    let ratios = sides.chunks_exact(targets).flat_map(of_concurrency).collect();
    let what = format!(
        "requests for a cached list per CPU second (user + system) of the answering process; × {} connections, each with one request \
         outstanding; {USERS} users, {RUN_MS} ms a run",
        CONNECTIONS.map(|connections| connections.to_string()).join(", ")
    );
    let conditions = conditions(&[("redis", &bench.cluster.redis.version)], Vec::new());
    bench.cluster.stack.stop().await?;
    Comparison::new("hit", what, sides, ratios, conditions)
}
