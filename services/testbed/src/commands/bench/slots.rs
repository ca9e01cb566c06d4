//! `bench slots`: requests that are lost while replicas come and go under load, beside what is usual without slots.

mod users;

use std::time::{Duration, Instant};

use anyhow::ensure;
use api::Profile;
use launcher::Signal;
use loadtest::scenario::{self, Scenario};

use self::users::Users;
use super::conditions;
use crate::{
    cli::BenchArgs,
    data,
    instruments::{
        comparison::{self, Comparison, Figures, Reference, Side},
        scrape::Reading,
    },
    stack::service::{Plan, Replica, ServiceStack},
};

const REPEATS: u8 = 10;
const FEW: usize = 2;
const MANY: usize = 4;
/// Users of the data.
const GENERATED: u32 = 500;
/// nginx tries an absent replica again after at most 3 s; more on a machine that is busy with other things.
const FIRST_REQUEST: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
const LOST: &str = "lost";
const REQUESTS: &str = "requests";
const PER_S: &str = "answers_per_s";

/// How replicas come and go.
const SIDES: [&str; 3] = ["slots", "slots and a reload", "slots without a leave"];
const SLOTS: usize = 0;
const RELOAD: usize = 1;
const NO_LEAVE: usize = 2;

pub async fn run(args: BenchArgs) -> anyhow::Result<Comparison> {
    let mut scenario = Scenario::load("smoke")?;
    scenario.law = scenario::Law::None;
    scenario.replicas = FEW as u32;
    let mut plan = Plan::new("bench", &scenario);
    plan.slots = Some(MANY as u32);
    plan.check(Profile::Protected, &[])?;
    let mut service = ServiceStack::start(plan).await?;
    let dataset = data::Source::Generator(GENERATED).load().await?.dataset;
    service.load(&dataset).await?;
    service.start_replicas(Profile::Protected, &[]).await?;
    let ids: Vec<String> = dataset.users.iter().map(|id| id.as_str().to_owned()).collect();
    let repeats = usize::from(args.repeat.unwrap_or(REPEATS));
    let mut examples = vec![None; SIDES.len()];
    let runs = comparison::in_turns(SIDES.len(), repeats, async |side| {
        let (figures, example) = come_and_go(&mut service, side, &ids).await?;
        examples[side] = examples[side].take().or(example);
        Ok(figures)
    });
    let runs = runs.await?;
    let sides: Vec<Side> = SIDES.iter().zip(&runs).map(|(name, runs)| Side::new(name, runs)).collect();
    let ratios = vec![sides[SLOTS].over(&sides[RELOAD], PER_S), sides[SLOTS].over(&sides[NO_LEAVE], PER_S)];
    // One lost request is too many, whichever run lost it.
    let mut aim = sides[SLOTS].mark(LOST, Reference::AtMost(0.0));
    aim.measured = sum(&runs[SLOTS], LOST);
    aim.met = Some(aim.measured == 0.0);
    let remarks = SIDES.iter().enumerate().map(|(side, name)| {
        let example = examples[side].as_ref().map_or(String::new(), |example| format!(", first: {example}"));
        format!("{name}: {} of {} requests lost{example}.", sum(&runs[side], LOST), sum(&runs[side], REQUESTS))
    });
    let conditions = conditions(&[("nginx", &service.nginx.version)], remarks.collect());
    let what = format!(
        "from {FEW} to {MANY} to {FEW} replicas while {} users send GETs and POSTs over kept connections, {repeats} times",
        users::COUNT
    );
    service.stop_replicas().await?;
    service.stack.stop().await?;
    Ok(Comparison::new("slots", what, sides, ratios, conditions)?.beside(vec![aim]))
}

fn sum(runs: &[Figures], figure: &str) -> f64 {
    runs.iter().filter_map(|run| run.get(figure)).sum()
}

/// Also answers the first loss.
async fn come_and_go(
    service: &mut ServiceStack,
    side: usize,
    ids: &[String],
) -> anyhow::Result<(Figures, Option<String>)> {
    let (started, users) = (Instant::now(), Users::start(&service.nginx.url, ids)?);
    let sets = if side == NO_LEAVE { vec!["http.leave_ms=0".to_owned()] } else { Vec::new() };
    for n in FEW..MANY {
        service.add_replica(n, Profile::Protected, &sets)?;
    }
    service.wait_replicas().await?;
    reload_if(side == RELOAD, service)?;
    first_requests(service).await?;
    for n in FEW..MANY {
        service.leave(n)?;
    }
    reload_if(side == RELOAD, service)?;
    service.wait_left().await?;
    let sent = users.stop().await?;
    let answered = sent.requests - sent.lost;
    let figures = [
        (REQUESTS, sent.requests as f64),
        (LOST, sent.lost as f64),
        (PER_S, answered as f64 / started.elapsed().as_secs_f64()),
    ];
    Ok((figures.into(), sent.first_loss))
}

/// What a gateway does whose list of replicas has changed.
fn reload_if(reload: bool, service: &mut ServiceStack) -> anyhow::Result<()> {
    if reload { service.stack.kill(service.nginx.child, Signal::SIGHUP) } else { Ok(()) }
}

/// Waits until the gateway has found all replicas.
async fn first_requests(service: &ServiceStack) -> anyhow::Result<()> {
    let http = runtime::http::plain().timeout(Duration::from_secs(5)).build()?;
    let deadline = Instant::now() + FIRST_REQUEST;
    for Replica { n, admin, .. } in &service.replicas {
        // A replica that is too busy to show its metrics is asked again.
        while answers(&http, admin).await.unwrap_or_default() == 0.0 {
            ensure!(Instant::now() < deadline, "replica {n} got no request within {FIRST_REQUEST:?}");
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

async fn answers(http: &reqwest::Client, admin: &str) -> reqwest::Result<f64> {
    let text = http.get(format!("{admin}/metrics")).send().await?.error_for_status()?.text().await?;
    Ok(Reading::of([text.as_str()]).sum("http_server_request_duration_seconds_count", &[]))
}
