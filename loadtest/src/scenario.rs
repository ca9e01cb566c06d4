//! A load test as data: the offered load of each step, the ids, the modelled store and the planned faults.
//!
//! The testbed's scenarios are built in. Others are read from TOML files of the same form. Parsing checks every range once, so the
//! values of a [`Scenario`] are valid.

mod arrivals;
mod criticality;
mod law;
mod read;
mod retry;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

pub use self::law::Law;
use self::read::{Errors, Table, integer, number};
use crate::{
    arrivals::Arrivals,
    criticality::CriticalityMix,
    figures::{ArticleFigures, Tolerances},
    retry::Retry,
};

/// Name and TOML text of each built-in scenario.
pub const BUILT_IN: [(&str, &str); 7] = [
    ("article", include_str!("../scenarios/article.toml")),
    ("penetration", include_str!("../scenarios/penetration.toml")),
    ("overload", include_str!("../scenarios/overload.toml")),
    ("outage", include_str!("../scenarios/outage.toml")),
    ("open", include_str!("../scenarios/open.toml")),
    ("zipf", include_str!("../scenarios/zipf.toml")),
    ("smoke", include_str!("../scenarios/smoke.toml")),
];

/// The profiles that a scenario may name.
pub const PROFILES: [&str; 2] = ["baseline", "protected"];

const MAX_STEPS: usize = 50;
const MAX_FAULTS: usize = 50;
const MAX_USERS: u32 = 20_000;
const MAX_MEASURE_S: u32 = 3_600;
const STEADY_WARM_UP_S: u32 = 3;
const LOSS_SEED: u64 = 1;

/// A load test. Keys of the TOML file have the fields' names; `unknown_share` and `known` are in the table `[ids]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scenario {
    /// Name of the scenario. It is part of the report directory's name, so it must not contain a slash.
    pub name: String,
    /// One sentence that the report shows.
    pub description: String,
    /// Number of users of each step: 1 to 50 steps, each with 1 to 20,000 users, all different. With open arrivals they are requests per
    /// second.
    pub steps: Vec<u32>,
    /// Time between two planned requests of one user, in milliseconds (10 to 60,000). Only with closed arrivals; with open ones it is 1,000.
    pub interval_ms: u64,
    /// Grid of the users' first requests, in milliseconds (0 to 10). Users between two grid points send together. 0 spreads all users
    /// evenly over the interval.
    pub arrival_grid_ms: u64,
    /// Timeout of a request, in milliseconds (10 to 60,000). A request without a complete response by then is an error. With retries: the
    /// deadline of a request with all its tries.
    pub timeout_ms: u64,
    /// How the load generator sends a failed request again. Without the table `[retry]`: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Criticality of the requests. Without the table `[criticality]` they carry none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub criticality: Option<CriticalityMix>,
    /// Warm-up at the start of each step, in whole seconds (0 to 600). It is not measured.
    pub warm_up_s: u32,
    /// Measured part of each step, in whole seconds (1 to 3,600).
    pub measure_s: u32,
    /// Share of the requests whose user id does not exist (0 to 1): one number for all steps, or a list with one number per step.
    pub unknown_share: Vec<f64>,
    /// How the load generator selects the ids of existing users: `once` or `zipf`.
    pub known: KnownIds,
    /// Response-time law of the store.
    pub law: Law,
    /// Connection pool of each replica.
    pub store: Store,
    /// Number of API replicas (1 to 64).
    pub replicas: u32,
    /// Profiles to measure, in this order: `baseline`, `protected`, or both.
    pub profiles: Vec<String>,
    /// Whether Redis is emptied before each step of the baseline. Other profiles keep their cache.
    pub flush_cache_before_step: bool,
    /// Planned faults of the store, at most 50.
    pub faults: Vec<Fault>,
    /// Limits that a reproduction of the article must meet. Without the table `[tolerances]` nothing is judged.
    #[serde(skip)]
    pub tolerances: Option<Tolerances>,
    /// Figures that the article states, in the tables `[[article.baseline]]` and `[[article.protected]]`.
    #[serde(skip)]
    pub article: Vec<ArticleRow>,
    /// How requests arrive; by default `closed`. `open` needs the table `[open]`.
    pub arrivals: Arrivals,
}

/// How the load generator selects the ids of existing users.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum KnownIds {
    /// In shuffled order. An id is repeated only after all ids were used.
    Once,
    /// With replacement. The probability of the n-th id of the list is proportional to n^-exponent.
    Zipf {
        /// 0 (uniform) to 5.
        exponent: f64,
    },
}

/// Order in which the waiting requests of a replica get a free connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Last in, first out.
    Newest,
    /// First in, first out.
    Oldest,
}

/// Connection pool of a replica and the queue in front of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Store {
    /// Connections of one replica to the whole store (1 to 10,000). Several MySQL servers share them.
    pub pool_size: u32,
    /// Order in which waiting requests get a free connection: `newest` or `oldest` first.
    pub order: Order,
    /// Longest wait for a connection, in milliseconds (1 to 60,000).
    pub checkout_timeout_ms: u64,
    /// Most requests that wait for a connection of one replica (0 to 1,000,000). The replica refuses further ones.
    pub max_waiting: u32,
}

/// A planned fault of the store. Its end must be within the measured part of the step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fault {
    /// Step in which the fault occurs: an index into `Scenario::steps`, or `None` for every step. The TOML file counts from 1.
    pub step: Option<usize>,
    /// Start of the fault, in seconds after the start of the measured part (0 to 3,600).
    pub at_s: f64,
    /// Duration of the fault, in seconds (0.1 to 3,600).
    pub for_s: f64,
    /// `latency`, `stall`, `reset`, `refuse` or `loss`.
    pub kind: FaultKind,
}

/// What the fault does to the connections between the replicas and the store.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum FaultKind {
    /// Delays each response of the store.
    Latency {
        /// Additional delay, in milliseconds (1 to 60,000).
        ms: u64,
    },
    /// Forwards nothing.
    Stall,
    /// Resets open connections, repeatedly.
    Reset,
    /// Refuses new connections.
    Refuse,
    /// Loses commands and responses. A model of TCP retransmits them.
    Loss {
        /// Lost share, in percent (0 to 100).
        pct: f64,
        /// Seed that selects the losses.
        seed: u64,
    },
}

/// Figures that the article states for one step of one profile.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArticleRow {
    /// `baseline` or `protected`.
    pub profile: String,
    /// Users of the step.
    pub users: u32,
    /// The article's figures.
    pub figures: ArticleFigures,
}

impl Scenario {
    /// Loads a built-in scenario by its name, or the TOML file at this path.
    ///
    /// # Errors
    /// Neither exists, or the file has errors: the message lists all of them with line and field.
    pub fn load(name_or_path: &str) -> Result<Self> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(name, text);
        }
        let path = Path::new(name_or_path);
        let names = BUILT_IN.map(|(name, _)| name).join(", ");
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{name_or_path} is neither a built-in scenario ({names}) nor a readable file"))?;
        Self::parse_in(name_or_path, &text, path.parent().unwrap_or(Path::new("")))
    }

    /// Parses a scenario; `origin` names the text in error messages. The file of a curve is relative to the working directory.
    ///
    /// # Errors
    /// Lists all errors of the text with line and field.
    pub fn parse(origin: &str, text: &str) -> Result<Self> {
        Self::parse_in(origin, text, Path::new(""))
    }

    fn parse_in(origin: &str, text: &str, folder: &Path) -> Result<Self> {
        let (document, syntax) = DeTable::parse_recoverable(text);
        if !syntax.is_empty() {
            let lines: Vec<_> = syntax.iter().map(ToString::to_string).collect();
            bail!("scenario {origin} is not valid TOML:\n{}", lines.join("\n"));
        }
        let errors = Errors::new(text);
        let scenario = read_scenario(Table::document(&errors, document.get_ref()), folder);
        let lines = errors.into_lines();
        if !lines.is_empty() {
            let noun = if lines.len() == 1 { "error" } else { "errors" };
            bail!("scenario {origin} has {} {noun}:\n  {}", lines.len(), lines.join("\n  "));
        }
        Ok(scenario)
    }

    /// A steady load without a file: one step, one request per user and second, ids of existing users with a Zipf distribution, and the
    /// timeout of the built-in scenarios. Fields that only `evaluate` and `up` use have the values of the scenario `zipf`.
    ///
    /// # Errors
    /// `users` is not 1..=20,000 or `measure_s` not 1..=3,600.
    pub fn steady(users: u32, measure_s: u32) -> Result<Self> {
        ensure!((1..=MAX_USERS).contains(&users), "users must be 1..={MAX_USERS}, is {users}");
        ensure!(
            (1..=MAX_MEASURE_S).contains(&measure_s),
            "the duration must be 1..={MAX_MEASURE_S} s, is {measure_s} s"
        );
        Ok(Self {
            name: "steady".into(),
            description: format!("{users} users who send once a second for {measure_s} s."),
            steps: vec![users],
            warm_up_s: STEADY_WARM_UP_S,
            measure_s,
            unknown_share: vec![0.0],
            ..Self::load("zipf")?
        })
    }

    /// A step in words: `200 users`, or `200 requests/s` with open arrivals.
    pub fn step_in_words(&self, step: u32) -> String {
        if self.arrivals.is_closed() { format!("{step} users") } else { format!("{step} requests/s") }
    }

    /// Planned requests per second of a step; with a curve of open arrivals, before its factors.
    pub fn offered_per_s(&self, users: u32) -> f64 {
        f64::from(users) * 1000.0 / self.interval_ms as f64
    }

    /// Queries per second when all connections of all replicas are always busy; above it, the queues grow. `None` without a modelled
    /// law.
    pub fn store_capacity_per_s(&self) -> Option<f64> {
        self.law.rate_per_s(f64::from(self.replicas) * f64::from(self.store.pool_size))
    }

    /// The article's figures for a step, if it states any.
    pub fn article(&self, profile: &str, users: u32) -> Option<&ArticleFigures> {
        self.article.iter().find(|row| row.profile == profile && row.users == users).map(|row| &row.figures)
    }

    /// The faults of one step, ordered by their start.
    pub fn faults_of(&self, step: usize) -> Vec<Fault> {
        let mut faults: Vec<_> =
            self.faults.iter().filter(|fault| fault.step.is_none_or(|of| of == step)).copied().collect();
        faults.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        faults
    }
}

impl KnownIds {
    /// The text that the report shows.
    pub fn describe(&self) -> String {
        match self {
            Self::Once => "once".into(),
            Self::Zipf { exponent } => format!("zipf, exponent {exponent}"),
        }
    }
}

/// Replaces invalid values by defaults: the caller drops the result when an error was found.
fn read_scenario(document: Table<'_>, folder: &Path) -> Scenario {
    let steps = document.required("steps", |t, key| {
        t.list(key, 1..=MAX_STEPS, |value| integer(value, &(1..=MAX_USERS.into())).map(|users| users as u32))
    });
    if (1..steps.len()).any(|at| steps[..at].contains(&steps[at])) {
        document.error("steps", "must not repeat a number: the number of users identifies a step");
    }
    let measure_s = document.required("measure_s", |t, key| t.integer(key, 1..=MAX_MEASURE_S.into())) as u32;
    let mix = document.table("ids");
    let (unknown_share, known) = match mix {
        Some(mix) => read_mix(mix, steps.len()),
        None => (absent(&document, "ids", Vec::new()), KnownIds::Once),
    };
    let law = match document.table("law") {
        Some(law) => law::read(law),
        None => absent(&document, "law", Law::None),
    };
    let store = match document.table("store") {
        Some(store) => read_store(store),
        None => absent(
            &document,
            "store",
            Store { pool_size: 1, order: Order::Oldest, checkout_timeout_ms: 1, max_waiting: 0 },
        ),
    };
    let profiles: Vec<String> = document.required("profiles", |t, key| {
        t.list(key, 1..=PROFILES.len(), |value| match value.as_str() {
            Some(name) if PROFILES.contains(&name) => Ok(name.to_owned()),
            _ => Err(format!("must be one of: {}", PROFILES.join(", "))),
        })
    });
    if profiles.len() == 2 && profiles[0] == profiles[1] {
        document.error("profiles", "must not name a profile twice");
    }
    let faults = document.tables("faults", MAX_FAULTS).into_iter();
    let faults = faults.map(|fault| read_fault(fault, steps.len(), measure_s)).collect();
    let article = document.table("article").map(|table| read_article(table, &steps)).unwrap_or_default();
    let arrivals::Keys { arrivals, interval_ms, arrival_grid_ms } =
        arrivals::read(&document, &steps, measure_s, folder);
    let timeout_ms = document.required("timeout_ms", |t, key| t.integer(key, 10..=60_000));
    let scenario = Scenario {
        name: document.required("name", Table::text),
        description: document.required("description", Table::text),
        interval_ms,
        arrival_grid_ms,
        timeout_ms,
        retry: document.table("retry").map(|table| retry::read(table, timeout_ms)),
        criticality: document.table("criticality").map(criticality::read),
        warm_up_s: document.required("warm_up_s", |t, key| t.integer(key, 0..=600)) as u32,
        measure_s,
        unknown_share,
        known,
        law,
        store,
        replicas: document.required("replicas", |t, key| t.integer(key, 1..=64)) as u32,
        profiles,
        flush_cache_before_step: document.required("flush_cache_before_step", Table::flag),
        faults,
        tolerances: document.table("tolerances").map(read_tolerances),
        article,
        arrivals,
        steps,
    };
    if scenario.name.is_empty() || scenario.name.contains(['/', '\\']) {
        document.error("name", "must not be empty or contain a slash: it is part of the report directory's name");
    }
    document.finish();
    scenario
}

fn absent<T>(table: &Table<'_>, key: &'static str, stand_in: T) -> T {
    if !table.has(key) {
        table.error(key, "is missing");
    }
    stand_in
}

fn read_mix(table: Table<'_>, steps: usize) -> (Vec<f64>, KnownIds) {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Once,
        Zipf,
    }
    let shares = if table.is_list("unknown_share") {
        let shares =
            table.required("unknown_share", |t, key| t.list(key, 1..=MAX_STEPS, |value| number(value, &(0.0..=1.0))));
        if shares.len() != steps {
            table.error("unknown_share", "must be one number, or a list of one per step");
        }
        shares
    } else {
        vec![table.required("unknown_share", |t, key| t.number(key, 0.0..=1.0)); steps]
    };
    let kinds = [("once", Kind::Once), ("zipf", Kind::Zipf)];
    let kind = table.required("known", |t, key| t.choice(key, &kinds).map(Some)).unwrap_or(Kind::Once);
    let known = match kind {
        Kind::Once => {
            if table.has("exponent") {
                table.error("exponent", "belongs to known = \"zipf\"");
            }
            KnownIds::Once
        }
        Kind::Zipf => KnownIds::Zipf { exponent: table.required("exponent", |t, key| t.number(key, 0.0..=5.0)) },
    };
    table.finish();
    (shares, known)
}

fn read_store(table: Table<'_>) -> Store {
    let orders = [("newest", Order::Newest), ("oldest", Order::Oldest)];
    let store = Store {
        pool_size: table.required("pool_size", |t, key| t.integer(key, 1..=10_000)) as u32,
        order: table.required("order", |t, key| t.choice(key, &orders).map(Some)).unwrap_or(Order::Oldest),
        checkout_timeout_ms: table.required("checkout_timeout_ms", |t, key| t.integer(key, 1..=60_000)),
        max_waiting: table.required("max_waiting", |t, key| t.integer(key, 0..=1_000_000)) as u32,
    };
    table.finish();
    store
}

fn read_fault(table: Table<'_>, steps: usize, measure_s: u32) -> Fault {
    #[derive(Clone, Copy)]
    enum Kind {
        Latency,
        Stall,
        Reset,
        Refuse,
        Loss,
    }
    let kinds = [
        ("latency", Kind::Latency),
        ("stall", Kind::Stall),
        ("reset", Kind::Reset),
        ("refuse", Kind::Refuse),
        ("loss", Kind::Loss),
    ];
    let kind = table.required("kind", |t, key| t.choice(key, &kinds).map(Some)).unwrap_or(Kind::Stall);
    let other_kinds = match kind {
        Kind::Latency => &["pct", "seed"][..],
        Kind::Loss => &["ms"],
        _ => &["ms", "pct", "seed"],
    };
    for &key in other_kinds {
        if table.has(key) {
            let kind = if key == "ms" { "latency" } else { "loss" };
            table.error(key, &format!("belongs to kind = \"{kind}\""));
        }
    }
    let kind = match kind {
        Kind::Latency => FaultKind::Latency { ms: table.required("ms", |t, key| t.integer(key, 1..=60_000)) },
        Kind::Loss => FaultKind::Loss {
            pct: table.required("pct", |t, key| t.number(key, 0.0..=100.0)),
            seed: table.integer("seed", 0..=i64::MAX as u64).unwrap_or(LOSS_SEED),
        },
        Kind::Reset => FaultKind::Reset,
        Kind::Refuse => FaultKind::Refuse,
        Kind::Stall => FaultKind::Stall,
    };
    let fault = Fault {
        step: table.integer("step", 1..=steps.max(1) as u64).map(|number| number as usize - 1),
        at_s: table.required("at_s", |t, key| t.number(key, 0.0..=3600.0)),
        for_s: table.required("for_s", |t, key| t.number(key, 0.1..=3600.0)),
        kind,
    };
    if fault.at_s + fault.for_s > f64::from(measure_s) {
        table.error("for_s", &format!("must end within measure_s ({measure_s} s)"));
    }
    table.finish();
    fault
}

/// Absent keys keep the limits of the article's reproduction.
fn read_tolerances(table: Table<'_>) -> Tolerances {
    let mut tolerances = Tolerances::default();
    if let Some(users) = table.list("overload_users", 0..=MAX_STEPS, |value| integer(value, &(1..=20_000))) {
        tolerances.overload_users = users.into_iter().map(|users| users as u32).collect();
    }
    let percents = [
        ("model_rate_pct", &mut tolerances.model_rate_pct),
        ("model_error_points", &mut tolerances.model_error_points),
        ("model_mean_pct", &mut tolerances.model_mean_pct),
        ("article_error_points", &mut tolerances.article_error_points),
        ("article_mean_pct", &mut tolerances.article_mean_pct),
        ("min_timeout_share_pct", &mut tolerances.min_timeout_share_pct),
        ("protected_max_error_pct", &mut tolerances.protected_max_error_pct),
        ("protected_min_answered_pct", &mut tolerances.protected_min_answered_pct),
        ("protected_min_personal_pct", &mut tolerances.protected_min_personal_pct),
    ];
    for (key, field) in percents {
        if let Some(value) = table.number(key, 0.0..=100.0) {
            *field = value;
        }
    }
    if let Some(value) = table.number("protected_max_p99_ms", 0.0..=60_000.0) {
        tolerances.protected_max_p99_ms = value;
    }
    table.finish();
    tolerances
}

fn read_article(table: Table<'_>, steps: &[u32]) -> Vec<ArticleRow> {
    let mut rows: Vec<ArticleRow> = Vec::new();
    for profile in PROFILES {
        for row in table.tables(profile, MAX_STEPS) {
            let users = row.required("users", |t, key| t.integer(key, 1..=20_000)) as u32;
            if !steps.contains(&users) {
                row.error("users", "must be one of the steps");
            }
            if rows.iter().any(|known| known.profile == profile && known.users == users) {
                row.error("users", "is given twice");
            }
            let figures = ArticleFigures {
                mean_ms: row.number("mean_ms", 0.0..=60_000.0),
                error_pct: row.required("error_pct", |t, key| t.number(key, 0.0..=100.0)),
                qps: row.required("qps", |t, key| t.number(key, 0.0..=1e9)),
            };
            row.finish();
            rows.push(ArticleRow { profile: profile.to_owned(), users, figures });
        }
    }
    table.finish();
    rows
}

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;
