//! `experiment alerts`: on a real stack, each alert of deploy/prometheus fires on its own fault and clears when the fault is over. All times
//! of the rules are divided by one number, so that days pass within minutes.

mod copies;
mod events;
mod faults;
mod stack;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::ensure;
use clap::{Args, FromArgMatches};
use report::{Section, Table, Verdict};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use self::{
    faults::{CASES, Case},
    stack::{AlertsStack, INTERVAL, PER_S, REPLICAS, SPEED_UP},
};
use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "alerts",
    about: "Every alert made to fire on a real stack by its own fault, and to clear, in windows of seconds instead of hours",
    examples: "Examples:
  ./testbed experiment alerts              all of deploy/prometheus/alerts.yml (about 10 minutes)
  ./testbed experiment alerts --quick      without the burn rates, whose windows are the longest
  ./testbed experiment alerts --alert TargetDown --alert CacheAway
  ./testbed experiment alerts --json | jq '.sections[0].measured.alerts[] | {alert, fires_s, clears_s}'",
    args: AlertsArgs::augment_args,
    run: |matches| Box::pin(async move { run(AlertsArgs::from_arg_matches(&matches)?).await }),
};

#[derive(Args)]
struct AlertsArgs {
    /// Only the fault that sets off this alert (repeatable)
    #[arg(long = "alert", value_name = "NAME")]
    alerts: Vec<String>,
    #[command(flatten)]
    run: RunArgs,
}

const POLL: Duration = Duration::from_millis(100);
/// From a fault to the last of its alerts.
const FIRES_WITHIN: Duration = Duration::from_secs(60);
/// An alert that is silent for this time has cleared.
const SILENT: Duration = Duration::from_secs(2);
/// The longest window of the short ones, 6 h, and some time for a busy machine.
const CLEARS_WITHIN: Duration = Duration::from_secs(6 * 3_600 / SPEED_UP as u64 + 60);
/// Load without a fault, in which no alert may fire.
const CALM: Duration = Duration::from_secs(20);
const QUICK_CALM: Duration = Duration::from_secs(3);

/// One alert.
#[derive(Debug, Serialize)]
struct Seen {
    alert: &'static str,
    fault: &'static str,
    /// Seconds from the fault's beginning; `None`: it did not fire.
    fires_s: Option<f64>,
    /// Seconds from the fault's end; `None`: it did not clear.
    clears_s: Option<f64>,
    /// Other alerts that fired meanwhile.
    #[serde(rename = "beside")]
    others_fired: BTreeSet<String>,
}

impl Seen {
    /// The other alerts, in words.
    fn others(&self) -> Option<String> {
        let others: Vec<&str> = self.others_fired.iter().map(String::as_str).collect();
        (!others.is_empty()).then(|| format!("Other alerts fired with {}: {}.", self.alert, others.join(", ")))
    }
}

#[derive(Debug, Serialize)]
struct Measured {
    /// Times of the rules are divided by this.
    divided_by: u32,
    calm_s: f64,
    fired_in_calm: BTreeSet<String>,
    alerts: Vec<Seen>,
}

async fn run(args: AlertsArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let chosen = chosen(&args)?;
    eprintln!("starting the stack");
    let mut stack = AlertsStack::start().await?;
    eprintln!("waiting until none of these alerts fires");
    quiet(&stack, |alert| chosen.iter().any(|case| case.alerts.contains(&alert))).await?;
    let calm = if args.run.quick { QUICK_CALM } else { CALM };
    let fired_in_calm = watch(&stack, calm).await?;
    let mut alerts = Vec::new();
    for case in chosen {
        eprintln!("{}: {}", case.alerts.join(", "), case.what);
        alerts.extend(try_case(&mut stack, case).await?);
    }
    let versions = format!("{}, {}.", stack.prometheus.version, stack.service.redis.version);
    stack.service.stack.stop().await?;
    let measured = Measured { divided_by: SPEED_UP, calm_s: calm.as_secs_f64(), fired_in_calm, alerts };
    let found = Found {
        what: format!(
            "{REPLICAS} replicas, {PER_S} requests/s, each of which queries the store; 50 events/s through Kafka; three monitors, three workers. All times of \
             deploy/prometheus are divided by {SPEED_UP} (6 h are {} s), windows down to four scrapes; scraping and evaluation every {} ms. \
             Each fault lasts until its alerts fire.",
            6 * 3_600 / SPEED_UP,
            INTERVAL.as_millis()
        ),
        sections: vec![
            Section::new("From a fault to its alert", "", serde_json::to_value(&measured)?)
                .with_tables(vec![table(&measured)]),
        ],
        verdicts: verdicts(&measured),
        remarks: [
            versions,
            "These are the times from a fault through scraping and rules, with scaled windows. For production's times see promtool's cases \
             (deploy/prometheus/alerts_test.yml)."
                .into(),
        ]
        .into_iter()
        .chain(measured.alerts.iter().filter_map(Seen::others))
        .collect(),
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}

fn chosen(args: &AlertsArgs) -> anyhow::Result<Vec<&'static Case>> {
    let all: BTreeSet<&str> = CASES.iter().flat_map(|case| case.alerts).copied().collect();
    for name in &args.alerts {
        let known: Vec<&str> = all.iter().copied().collect();
        ensure!(all.contains(name.as_str()), "there is no alert '{name}'; choose from {}", known.join(", "));
    }
    let is_chosen = |case: &&Case| match args.alerts.as_slice() {
        [] => !(args.run.quick && case.is_slow()),
        names => case.alerts.iter().any(|alert| names.iter().any(|name| name == alert)),
    };
    Ok(CASES.iter().filter(is_chosen).collect())
}

/// Waits until no alert that matters fires.
async fn quiet(stack: &AlertsStack, matters: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let (start, mut since) = (Instant::now(), Instant::now());
    while since.elapsed() < SILENT {
        let firing = stack.firing().await?;
        if firing.iter().any(|alert| matters(alert)) {
            ensure!(start.elapsed() < CLEARS_WITHIN, "alerts fire without a fault: {firing:?}");
            since = Instant::now();
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// All alerts that fire within this time.
async fn watch(stack: &AlertsStack, time: Duration) -> anyhow::Result<BTreeSet<String>> {
    let (start, mut all) = (Instant::now(), BTreeSet::new());
    while start.elapsed() < time {
        all.extend(stack.firing().await?);
        sleep(POLL).await;
    }
    Ok(all)
}

async fn try_case(stack: &mut AlertsStack, case: &'static Case) -> anyhow::Result<Vec<Seen>> {
    quiet(stack, |alert| case.alerts.contains(&alert)).await?;
    let before = stack.firing().await?;
    let (mut fires, mut last, mut others_fired) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let start = Instant::now();
    let fault = case.fault.begin(stack).await?;
    while fires.len() < case.alerts.len() && start.elapsed() < FIRES_WITHIN {
        let (firing, at) = (stack.firing().await?, start.elapsed().as_secs_f64());
        for alert in case.alerts.iter().filter(|alert| firing.contains(**alert)) {
            fires.entry(*alert).or_insert(at);
        }
        others_fired.extend(firing);
        sleep(POLL).await;
    }
    fault.end(stack).await?;
    let start = Instant::now();
    loop {
        let (firing, at) = (stack.firing().await?, start.elapsed());
        last.extend(case.alerts.iter().filter(|alert| firing.contains(**alert)).map(|alert| (*alert, at)));
        others_fired.extend(firing);
        let newest = last.values().max().copied().unwrap_or_default();
        if at > newest + SILENT || at > CLEARS_WITHIN {
            break;
        }
        sleep(POLL).await;
    }
    let ended = start.elapsed();
    others_fired.retain(|alert| !before.contains(alert) && !case.alerts.contains(&alert.as_str()));
    let seen = |alert: &&'static str| {
        let last = last.get(alert).copied().unwrap_or_default();
        Seen {
            alert,
            fault: case.what,
            fires_s: fires.get(alert).copied(),
            clears_s: (last + SILENT <= ended).then_some((last + POLL).as_secs_f64()),
            others_fired: others_fired.clone(),
        }
    };
    Ok(case.alerts.iter().map(seen).collect())
}

fn table(measured: &Measured) -> Table {
    let seconds = |s: Option<f64>| s.map_or_else(|| "never".into(), |s| format!("{s:.1}"));
    let row =
        |seen: &Seen| vec![seen.alert.to_owned(), seen.fault.to_owned(), seconds(seen.fires_s), seconds(seen.clears_s)];
    Table::new(
        "Alerts and their faults",
        "From the fault's beginning until the alert fires, and from its end until the alert is silent.",
        &["alert", "fault", "fires after, s", "clears after, s"],
        measured.alerts.iter().map(row).collect(),
    )
}

fn verdicts(measured: &Measured) -> Vec<Verdict> {
    let fired: Vec<&str> = measured.fired_in_calm.iter().map(String::as_str).collect();
    let silent = Verdict::new(
        "without a fault",
        format!("none fires in {:.0} s", measured.calm_s),
        if fired.is_empty() { "none".into() } else { fired.join(", ") },
        fired.is_empty(),
        "",
    );
    let alert = |seen: &Seen| {
        let outcome = |time: Option<f64>, what| {
            time.map_or_else(|| format!("never {what}"), |s| format!("{what} after {s:.1} s"))
        };
        Verdict::new(
            seen.alert,
            "fires, and clears".into(),
            format!("{}, {}", outcome(seen.fires_s, "fires"), outcome(seen.clears_s, "clears")),
            seen.fires_s.is_some() && seen.clears_s.is_some(),
            "",
        )
    };
    std::iter::once(silent).chain(measured.alerts.iter().map(alert)).collect()
}
