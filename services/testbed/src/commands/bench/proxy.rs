//! `bench faultproxy`: what the proxy costs when it does nothing.

use faultproxy::{Law, bench};
use launcher::{Stack, mariadb};
use runtime::Endpoint;

use super::conditions;
use crate::{
    cli::BenchArgs,
    instruments::comparison::{Comparison, Figures, Side},
    stack::service,
};

const FIGURE: &str = "commands_per_s";

/// The proxy's own crate measures, as its tests do without this binary; the shape is the common one.
pub async fn run(args: BenchArgs) -> anyhow::Result<Comparison> {
    let mut stack = Stack::create("bench")?;
    let server = mariadb::start(&mut stack, "mysql", &mariadb::Options::default()).await?;
    let proxy = service::start_proxy(&mut stack, std::slice::from_ref(&server), Law::None).await?;
    let direct = Endpoint::Unix(server.socket.clone());
    let defaults = bench::Options::default();
    let options = bench::Options { repeats: args.repeat.map_or(defaults.repeats, usize::from), ..defaults };
    let figures = bench::bench(&direct, &proxy.addresses[0], &options).await?;
    stack.stop().await?;
    let side = |name: &str, runs: &[f64]| {
        let runs: Vec<Figures> = runs.iter().map(|run| Figures::from([(FIGURE, *run)])).collect();
        Side::new(name, &runs)
    };
    let (proxied, direct) = (side("faultproxy", &figures.proxied_per_s), side("direct", &figures.direct_per_s));
    let ratio = proxied.over(&direct, FIGURE);
    let what = format!("{} on {} connections, {} s a run", figures.command, options.connections, options.run_s);
    let conditions = conditions(&[("store", &server.version)], Vec::new());
    Comparison::new("faultproxy", what, vec![proxied, direct], vec![ratio], conditions)
}
