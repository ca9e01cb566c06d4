//! `experiment alerts`: each alert of deploy/prometheus is made to fire by a fault of its own on a real stack, and clears when the fault is
//! over. All times of the rules are divided by one number, so that days pass within minutes.

mod bed;
mod faults;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::ensure;
use report::{Table, Verdict};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use self::{
    bed::{Bed, HURRY, INTERVAL, PER_S, REPLICAS},
    faults::{CASES, Case},
};
use super::findings::{self, Found, table, verdict};
use crate::cli::AlertsArgs;

const POLL: Duration = Duration::from_millis(100);
/// From a fault to the last of its alerts.
const FIRES_WITHIN: Duration = Duration::from_secs(60);
/// An alert has cleared that is silent for so long.
const SILENT: Duration = Duration::from_secs(2);
/// The longest window of the short ones, 6 h, and some time for a busy machine.
const CLEARS_WITHIN: Duration = Duration::from_secs(6 * 3_600 / HURRY as u64 + 60);
/// Load without a fault, in which none may fire.
const CALM: Duration = Duration::from_secs(20);
const QUICK_CALM: Duration = Duration::from_secs(3);

/// What one alert did.
#[derive(Debug, Serialize)]
struct Seen {
    alert: &'static str,
    fault: &'static str,
    /// Seconds from the fault's beginning; `None`: it did not fire.
    fires_s: Option<f64>,
    /// Seconds from the fault's end; `None`: it did not clear.
    clears_s: Option<f64>,
    /// Others that began to fire between the two.
    beside: BTreeSet<String>,
}

impl Seen {
    /// Names the others, in words.
    fn company(&self) -> Option<String> {
        let beside: Vec<&str> = self.beside.iter().map(String::as_str).collect();
        (!beside.is_empty()).then(|| format!("{} was not alone, there fired too: {}.", self.alert, beside.join(", ")))
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

pub async fn run(args: AlertsArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let chosen = chosen(&args)?;
    eprintln!("starting the stack");
    let mut bed = Bed::start().await?;
    eprintln!("waiting until none of these alerts fires");
    quiet(&bed, |alert| chosen.iter().any(|case| case.alerts.contains(&alert))).await?;
    let calm = if args.findings.quick { QUICK_CALM } else { CALM };
    let fired_in_calm = watch(&bed, calm).await?;
    let mut alerts = Vec::new();
    for case in chosen {
        eprintln!("{}: {}", case.alerts.join(", "), case.what);
        alerts.extend(try_case(&mut bed, case).await?);
    }
    let versions = format!("{}, {}.", bed.prometheus.version, bed.cluster.redis.version);
    bed.cluster.stack.stop().await?;
    let measured = Measured { divided_by: HURRY, calm_s: calm.as_secs_f64(), fired_in_calm, alerts };
    let found = Found {
        what: format!(
            "{REPLICAS} replicas, {PER_S} requests/s, each of which asks the store; three monitors, three workers. All times of deploy/prometheus are divided by {HURRY} (6 h are \
             {} s), windows down to four scrapes; scraped and evaluated every {} ms. Each fault lasts until its alerts fire.",
            6 * 3_600 / HURRY,
            INTERVAL.as_millis()
        ),
        tables: vec![shown(&measured)],
        charts: Vec::new(),
        verdicts: judged(&measured),
        measured: serde_json::to_value(&measured)?,
        remarks: [
            versions,
            "Production's times are those of promtool's cases (deploy/prometheus/alerts_test.yml); these are an alert's way from the fault \
             through scraping and rules, and what its windows add."
                .into(),
        ]
        .into_iter()
        .chain(measured.alerts.iter().filter_map(Seen::company))
        .collect(),
    };
    findings::publish("alerts", begun, found, &args.findings)
}

fn chosen(args: &AlertsArgs) -> anyhow::Result<Vec<&'static Case>> {
    let all: BTreeSet<&str> = CASES.iter().flat_map(|case| case.alerts).copied().collect();
    for name in &args.alerts {
        let known: Vec<&str> = all.iter().copied().collect();
        ensure!(all.contains(name.as_str()), "there is no alert '{name}': {}", known.join(", "));
    }
    let is_chosen = |case: &&Case| match args.alerts.as_slice() {
        [] => !(args.findings.quick && case.is_slow()),
        names => case.alerts.iter().any(|alert| names.iter().any(|name| name == alert)),
    };
    Ok(CASES.iter().filter(is_chosen).collect())
}

/// Waits until none of those that matter fires.
async fn quiet(bed: &Bed, matters: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let (start, mut since) = (Instant::now(), Instant::now());
    while since.elapsed() < SILENT {
        let firing = bed.firing().await?;
        if firing.iter().any(|alert| matters(alert)) {
            ensure!(start.elapsed() < CLEARS_WITHIN, "without a fault there fire: {firing:?}");
            since = Instant::now();
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// All that fire within that time.
async fn watch(bed: &Bed, time: Duration) -> anyhow::Result<BTreeSet<String>> {
    let (start, mut all) = (Instant::now(), BTreeSet::new());
    while start.elapsed() < time {
        all.extend(bed.firing().await?);
        sleep(POLL).await;
    }
    Ok(all)
}

async fn try_case(bed: &mut Bed, case: &'static Case) -> anyhow::Result<Vec<Seen>> {
    quiet(bed, |alert| case.alerts.contains(&alert)).await?;
    let before = bed.firing().await?;
    let (mut fires, mut last, mut beside) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let start = Instant::now();
    let fault = case.fault.begin(bed).await?;
    while fires.len() < case.alerts.len() && start.elapsed() < FIRES_WITHIN {
        let (firing, at) = (bed.firing().await?, start.elapsed().as_secs_f64());
        for alert in case.alerts.iter().filter(|alert| firing.contains(**alert)) {
            fires.entry(*alert).or_insert(at);
        }
        beside.extend(firing);
        sleep(POLL).await;
    }
    fault.end(bed).await?;
    let start = Instant::now();
    loop {
        let (firing, at) = (bed.firing().await?, start.elapsed());
        last.extend(case.alerts.iter().filter(|alert| firing.contains(**alert)).map(|alert| (*alert, at)));
        beside.extend(firing);
        let newest = last.values().max().copied().unwrap_or_default();
        if at > newest + SILENT || at > CLEARS_WITHIN {
            break;
        }
        sleep(POLL).await;
    }
    let ended = start.elapsed();
    beside.retain(|alert| !before.contains(alert) && !case.alerts.contains(&alert.as_str()));
    let seen = |alert: &&'static str| {
        let last = last.get(alert).copied().unwrap_or_default();
        Seen {
            alert,
            fault: case.what,
            fires_s: fires.get(alert).copied(),
            clears_s: (last + SILENT <= ended).then_some((last + POLL).as_secs_f64()),
            beside: beside.clone(),
        }
    };
    Ok(case.alerts.iter().map(seen).collect())
}

fn shown(measured: &Measured) -> Table {
    let seconds = |s: Option<f64>| s.map_or_else(|| "never".into(), |s| format!("{s:.1}"));
    let row =
        |seen: &Seen| vec![seen.alert.to_owned(), seen.fault.to_owned(), seconds(seen.fires_s), seconds(seen.clears_s)];
    table(
        "Alerts and their faults",
        "From the fault's beginning until the alert fires, and from its end until the alert is silent.",
        &["alert", "fault", "fires after, s", "clears after, s"],
        measured.alerts.iter().map(row).collect(),
    )
}

fn judged(measured: &Measured) -> Vec<Verdict> {
    let fired: Vec<&str> = measured.fired_in_calm.iter().map(String::as_str).collect();
    let silent = verdict(
        "without a fault",
        format!("none fires in {:.0} s", measured.calm_s),
        if fired.is_empty() { "none".into() } else { fired.join(", ") },
        fired.is_empty(),
        "",
    );
    let alert = |seen: &Seen| {
        let said = |time: Option<f64>, what| {
            time.map_or_else(|| format!("never {what}"), |s| format!("{what} after {s:.1} s"))
        };
        verdict(
            seen.alert,
            "fires, and clears".into(),
            format!("{}, {}", said(seen.fires_s, "fires"), said(seen.clears_s, "clears")),
            seen.fires_s.is_some() && seen.clears_s.is_some(),
            "",
        )
    };
    std::iter::once(silent).chain(measured.alerts.iter().map(alert)).collect()
}
