//! A load schedule as data. Scenarios of the testbed are built in; any other is read from a file of the same form.
//!
//! Every range is checked here, once; whoever holds a [`Scenario`] need not check again.

mod read;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use crate::figures::{ArticleFigures, Tolerances};
use read::{Faults, Table, integer, number};

/// Names and texts of the scenarios of the testbed.
pub const BUILT_IN: [(&str, &str); 6] = [
    ("article", include_str!("../scenarios/article.toml")),
    ("penetration", include_str!("../scenarios/penetration.toml")),
    ("overload", include_str!("../scenarios/overload.toml")),
    ("outage", include_str!("../scenarios/outage.toml")),
    ("zipf", include_str!("../scenarios/zipf.toml")),
    ("smoke", include_str!("../scenarios/smoke.toml")),
];

/// The profiles a scenario may ask for.
pub const PROFILES: [&str; 2] = ["baseline", "protected"];

const MAX_STEPS: usize = 50;
const MAX_FAULTS: usize = 50;
const LOSS_SEED: u64 = 1;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scenario {
    pub name: String,
    pub description: String,
    /// Users of each step, 1..=50 of them, no two alike.
    pub steps: Vec<u32>,
    /// Time between two planned requests of one user.
    pub interval_ms: u64,
    /// Users begin at multiples of this, so that those between two send together; 0: each at an instant of its own, evenly spread.
    pub arrival_grid_ms: u64,
    /// A request unanswered after this long is an error.
    pub timeout_ms: u64,
    /// Whole seconds, discarded at the start of each step.
    pub warm_up_s: u32,
    /// Whole seconds.
    pub measure_s: u32,
    /// One per step: share of requests with an id no user has, 0..=1.
    pub unknown_share: Vec<f64>,
    pub known: Known,
    pub law: Law,
    pub store: Store,
    /// Replicas of the api.
    pub replicas: u32,
    /// In the order they are run.
    pub profiles: Vec<String>,
    /// The baseline's Redis is emptied before each step; other profiles keep it warm.
    pub flush_cache_before_step: bool,
    pub faults: Vec<Fault>,
    /// What a reproduction has to meet; none: nothing is judged.
    #[serde(skip)]
    pub tolerances: Option<Tolerances>,
    /// Figures the article states.
    #[serde(skip)]
    pub article: Vec<ArticleRow>,
}

/// How the ids of known users are picked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Known {
    /// In shuffled order, none repeated until all were used.
    Once,
    /// With replacement; line n of the file is drawn with a probability proportional to n^-exponent.
    Zipf { exponent: f64 },
}

/// Time the store takes for a query.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Law {
    /// `base_ms + slope_ms × queries in flight in the whole store`, times a log-normal factor of mean 1 and sigma `spread`.
    Modelled { base_ms: f64, slope_ms: f64, spread: f64 },
    /// The store's real speed.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    Newest,
    Oldest,
}

/// The line in front of the store's connections; each replica has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Store {
    /// Connections of a replica in all; several servers of the store share them out.
    pub pool_size: u32,
    /// Which waiter gets the connection that comes free.
    pub order: Order,
    pub checkout_timeout_ms: u64,
    pub max_waiting: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fault {
    /// Index into `Scenario::steps`; none: in every step.
    pub step: Option<usize>,
    /// Since the measured part of the step began.
    pub at_s: f64,
    pub for_s: f64,
    pub kind: FaultKind,
}

/// What is done to the connections to the store.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum FaultKind {
    /// Added to each answer.
    Latency { ms: u64 },
    /// Nothing passes.
    Stall,
    /// Open connections are reset, again and again.
    Reset,
    /// New connections are refused.
    Refuse,
    /// Commands and answers are lost and sent again, by a model of TCP.
    Loss { pct: f64, seed: u64 },
}

#[derive(Debug, Clone, PartialEq)]
pub struct ArticleRow {
    pub profile: String,
    pub users: u32,
    pub figures: ArticleFigures,
}

impl Scenario {
    /// A built-in scenario by name, or else the file of that path.
    ///
    /// # Errors
    /// There is neither; or the file has errors: all of them are listed, each with line and field.
    pub fn load(name_or_path: &str) -> Result<Self> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(name, text);
        }
        let path = Path::new(name_or_path);
        let names = BUILT_IN.map(|(name, _)| name).join(", ");
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{name_or_path} is neither a scenario ({names}) nor a readable file"))?;
        Self::parse(name_or_path, &text)
    }

    /// `origin` names the text in errors.
    ///
    /// # Errors
    /// All that is wrong with the text, each with line and field.
    pub fn parse(origin: &str, text: &str) -> Result<Self> {
        let (document, syntax) = DeTable::parse_recoverable(text);
        if !syntax.is_empty() {
            let lines: Vec<_> = syntax.iter().map(ToString::to_string).collect();
            bail!("scenario {origin} is not TOML:\n{}", lines.join("\n"));
        }
        let faults = Faults::new(text);
        let scenario = read_scenario(Table::document(&faults, document.get_ref()));
        let lines = faults.into_lines();
        if !lines.is_empty() {
            let noun = if lines.len() == 1 { "error" } else { "errors" };
            bail!("scenario {origin} has {} {noun}:\n  {}", lines.len(), lines.join("\n  "));
        }
        Ok(scenario)
    }

    /// Planned requests per second of a step.
    pub fn offered_per_s(&self, users: u32) -> f64 {
        f64::from(users) * 1000.0 / self.interval_ms as f64
    }

    /// Queries per second that all connections of all replicas do when none of them is ever idle: beyond it lines grow. `None`
    /// with the store's real speed.
    pub fn store_capacity_per_s(&self) -> Option<f64> {
        let Law::Modelled { base_ms, slope_ms, .. } = self.law else { return None };
        let connections = f64::from(self.replicas) * f64::from(self.store.pool_size);
        let query_ms = base_ms + slope_ms * connections;
        (query_ms > 0.0).then(|| 1000.0 * connections / query_ms)
    }

    /// What the article states for a step, where it does.
    pub fn article(&self, profile: &str, users: u32) -> Option<&ArticleFigures> {
        self.article.iter().find(|row| row.profile == profile && row.users == users).map(|row| &row.figures)
    }

    /// The faults of one step, by their time.
    pub fn faults_of(&self, step: usize) -> Vec<Fault> {
        let mut faults: Vec<_> =
            self.faults.iter().filter(|fault| fault.step.is_none_or(|of| of == step)).copied().collect();
        faults.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        faults
    }
}

impl Known {
    /// As the report shows it.
    pub fn describe(&self) -> String {
        match self {
            Self::Once => "once".into(),
            Self::Zipf { exponent } => format!("zipf, exponent {exponent}"),
        }
    }
}

/// Values in error are replaced by defaults: the caller drops the result when anything was found.
fn read_scenario(document: Table<'_>) -> Scenario {
    let steps = document.required("steps", |t, key| {
        t.list(key, 1..=MAX_STEPS, |value| integer(value, &(1..=20_000)).map(|users| users as u32))
    });
    if (1..steps.len()).any(|at| steps[..at].contains(&steps[at])) {
        document.fault("steps", "must not repeat a number: steps are told apart by their users");
    }
    let measure_s = document.required("measure_s", |t, key| t.integer(key, 1..=3600)) as u32;
    let mix = document.table("ids");
    let (unknown_share, known) = match mix {
        Some(mix) => read_mix(mix, steps.len()),
        None => (absent(&document, "ids", Vec::new()), Known::Once),
    };
    let law = match document.table("law") {
        Some(law) => read_law(law),
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
        document.fault("profiles", "must not name a profile twice");
    }
    let faults = document.tables("faults", MAX_FAULTS).into_iter();
    let faults = faults.map(|fault| read_fault(fault, steps.len(), measure_s)).collect();
    let article = document.table("article").map(|table| read_article(table, &steps)).unwrap_or_default();
    let scenario = Scenario {
        name: document.required("name", Table::text),
        description: document.required("description", Table::text),
        interval_ms: document.required("interval_ms", |t, key| t.integer(key, 10..=60_000)),
        arrival_grid_ms: document.integer("arrival_grid_ms", 0..=10).unwrap_or_default(),
        timeout_ms: document.required("timeout_ms", |t, key| t.integer(key, 10..=60_000)),
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
        steps,
    };
    if scenario.name.is_empty() || scenario.name.contains(['/', '\\']) {
        document.fault("name", "must not be empty or hold a slash: result folders are named after it");
    }
    document.finish();
    scenario
}

fn absent<T>(table: &Table<'_>, key: &'static str, stand_in: T) -> T {
    if !table.has(key) {
        table.fault(key, "is missing");
    }
    stand_in
}

fn read_mix(table: Table<'_>, steps: usize) -> (Vec<f64>, Known) {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Once,
        Zipf,
    }
    let shares = if table.is_list("unknown_share") {
        let shares =
            table.required("unknown_share", |t, key| t.list(key, 1..=MAX_STEPS, |value| number(value, &(0.0..=1.0))));
        if shares.len() != steps {
            table.fault("unknown_share", "must be one number, or a list of one per step");
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
                table.fault("exponent", "belongs to known = \"zipf\"");
            }
            Known::Once
        }
        Kind::Zipf => Known::Zipf { exponent: table.required("exponent", |t, key| t.number(key, 0.0..=5.0)) },
    };
    table.finish();
    (shares, known)
}

fn read_law(table: Table<'_>) -> Law {
    let modelled = table.choice("kind", &[("modelled", true), ("none", false)]).unwrap_or(true);
    let law = if modelled {
        Law::Modelled {
            base_ms: table.required("base_ms", |t, key| t.number(key, 0.0..=60_000.0)),
            slope_ms: table.required("slope_ms", |t, key| t.number(key, 0.0..=1000.0)),
            spread: table.required("spread", |t, key| t.number(key, 0.0..=2.0)),
        }
    } else {
        for key in ["base_ms", "slope_ms", "spread"] {
            if table.has(key) {
                table.fault(key, "belongs to kind = \"modelled\"");
            }
        }
        Law::None
    };
    table.finish();
    law
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
            table.fault(key, &format!("belongs to kind = \"{kind}\""));
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
        table.fault("for_s", &format!("must end within measure_s ({measure_s} s)"));
    }
    table.finish();
    fault
}

/// Keys left out keep the value the reproduction of the article promises.
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
                row.fault("users", "must be one of the steps");
            }
            if rows.iter().any(|known| known.profile == profile && known.users == users) {
                row.fault("users", "is given twice");
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
