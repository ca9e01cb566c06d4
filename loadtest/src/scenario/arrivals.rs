//! Reads how the requests of a scenario arrive: the key `arrivals` and the table `[open]`.

use std::path::Path;

use super::read::Table;
use crate::{
    arrivals::{Arrivals, DEFAULT_MAX_IN_FLIGHT, MAX_IN_FLIGHT, Open, Spacing},
    rate_curve::RateCurve,
};

/// Interval of a user that is a request per second: the steps of open arrivals are rates.
const OPEN_INTERVAL_MS: u64 = 1000;

/// What a scenario says of its arrivals.
pub(super) struct Keys {
    pub(super) arrivals: Arrivals,
    pub(super) interval_ms: u64,
    pub(super) arrival_grid_ms: u64,
}

/// Reads the keys of both kinds of arrivals, so that each of the other kind is an error. `folder` is that of the scenario's file.
pub(super) fn read(document: &Table<'_>, steps: &[u32], measure_s: u32, folder: &Path) -> Keys {
    let is_open = document.choice("arrivals", &[("closed", false), ("open", true)]).unwrap_or(false);
    let open = document.table("open").map(|table| read_open(table, steps, measure_s, folder));
    let arrival_grid_ms = document.integer("arrival_grid_ms", 0..=10).unwrap_or_default();
    if is_open {
        for key in ["interval_ms", "arrival_grid_ms"] {
            if document.has(key) {
                document.error(key, "belongs to arrivals = \"closed\"");
            }
        }
        if !document.has("open") {
            document.error("open", "is missing: arrivals = \"open\" needs the table");
        }
        let arrivals = open.map(Arrivals::Open).unwrap_or_default();
        return Keys { arrivals, interval_ms: OPEN_INTERVAL_MS, arrival_grid_ms: 0 };
    }
    if document.has("open") {
        document.error("open", "belongs to arrivals = \"open\"");
    }
    let interval_ms = document.required("interval_ms", |t, key| t.integer(key, 10..=60_000));
    Keys { arrivals: Arrivals::Closed, interval_ms, arrival_grid_ms }
}

fn read_open(table: Table<'_>, steps: &[u32], measure_s: u32, folder: &Path) -> Open {
    let spacings = [("constant", Spacing::Constant), ("poisson", Spacing::Poisson)];
    let spacing = table.required("spacing", |t, key| t.choice(key, &spacings).map(Some)).unwrap_or(Spacing::Constant);
    let max_in_flight = table.integer("max_in_flight", 1..=MAX_IN_FLIGHT.into());
    let max_in_flight = max_in_flight.map_or(DEFAULT_MAX_IN_FLIGHT, |most| most as u32);
    let mut open = Open { spacing, max_in_flight, curve: None };
    if let Some(file) = table.text("curve") {
        match RateCurve::read(&folder.join(&file)) {
            Ok(curve) => open.curve = Some(curve),
            Err(error) => table.error("curve", &format!("{file:?}: {error:#}")),
        }
    }
    if let Some(curve) = &open.curve {
        let refused = steps.iter().find_map(|step| open.check(*step, u64::from(measure_s) * 1000).err());
        if let Some(error) = refused {
            table.error("curve", &format!("is refused: {error:#}"));
        } else if curve.seconds() > measure_s as usize {
            let seconds = curve.seconds();
            table.error("curve", &format!("has {seconds} seconds, but measure_s is {measure_s}"));
        }
    }
    table.finish();
    open
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model, plan::StepPlan, scenario::Scenario};

    const GOOD: &str = include_str!("../../scenarios/open.toml");

    /// The built-in scenario with changes, as a file beside `curve.csv`.
    fn with(changes: &[(&str, &str)], csv: &str) -> anyhow::Result<Scenario> {
        let mut text = GOOD.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("curve.csv"), csv)?;
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, text)?;
        Scenario::load(path.to_str().unwrap_or_default())
    }

    /// A line for each of `seconds`, all with this rate.
    fn csv(seconds: u32, rate: &str) -> String {
        let lines: String = (0..seconds).map(|second| format!("{second},{rate}\n")).collect();
        format!("second,rate\n{lines}")
    }

    const CURVE: (&str, &str) = ("max_in_flight = 2000", "max_in_flight = 2000\ncurve = \"curve.csv\"");

    #[test]
    fn steps_of_open_arrivals_are_rates() {
        let scenario = with(&[], "").unwrap();
        let expected = Open { spacing: Spacing::Poisson, max_in_flight: 2000, curve: None };
        assert_eq!(scenario.arrivals, Arrivals::Open(expected));
        assert_eq!((scenario.offered_per_s(200), scenario.step_in_words(200).as_str()), (200.0, "200 requests/s"));
        assert_eq!(model::step(&scenario, 200, 1), None);
        let plan = StepPlan::of(&scenario, 200, 0, Path::new("-"), "http://127.0.0.1:80");
        plan.check().unwrap();
        assert_eq!((plan.offered_per_s(), plan.users_at(5000), plan.offered_per_s_at(5000)), (200.0, 0, 200.0));
        let default = with(&[("max_in_flight = 2000\n", "")], "").unwrap();
        assert_eq!(default.arrivals.open().map(|open| open.max_in_flight), Some(DEFAULT_MAX_IN_FLIGHT));
    }

    #[test]
    fn a_curve_is_read_beside_the_scenario() {
        let scenario = with(&[CURVE], &csv(15, "0.5")).unwrap();
        let plan = StepPlan::of(&scenario, 200, 0, Path::new("-"), "http://127.0.0.1:80");
        plan.check().unwrap();
        assert_eq!(plan.offered_per_s(), 100.0);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<StepPlan>(&text).unwrap(), plan);
        assert!(StepPlan { measure_ms: 15_001, ..plan }.check().is_err());
    }

    #[test]
    fn keys_of_the_other_kind_and_bad_curves_are_errors_with_line_and_field() {
        let good = csv(15, "1");
        let arrivals = ("arrivals = \"open\"", "arrivals = \"open\"\ninterval_ms = 1000\narrival_grid_ms = 4");
        for (changes, csv, expected) in [
            (&[arrivals][..], good.as_str(), "line 7: interval_ms belongs to arrivals = \"closed\""),
            (&[arrivals], &good, "line 8: arrival_grid_ms belongs to arrivals = \"closed\""),
            (&[("\"open\"\ntimeout", "\"closed\"\ntimeout")], &good, "open belongs to arrivals = \"open\""),
            (&[("\"open\"\ntimeout", "\"closed\"\ntimeout")], &good, "line 1: interval_ms is missing"),
            (&[("\"open\"\ntimeout", "\"half\"\ntimeout")], &good, "arrivals must be \"closed\" or \"open\""),
            (&[("[open]\nspacing = \"poisson\"\nmax_in_flight = 2000\n", "")], &good, "open is missing: arrivals"),
            (&[("\"poisson\"", "\"even\"")], &good, "line 15: open.spacing must be \"constant\" or \"poisson\""),
            (&[("= 2000", "= 0")], &good, "line 16: open.max_in_flight must be 1..=20000, is 0"),
            (&[("spacing", "gap")], &good, "open.gap is unknown; known here: curve, max_in_flight, spacing"),
            (&[CURVE, ("curve.csv", "no.csv")], &good, "line 17: open.curve \"no.csv\": No such file"),
            (&[CURVE, ("curve.csv", ".")], &good, "open.curve \".\": is not a file"),
            (&[CURVE], "second,rate\n0,1\n2,1\n", "open.curve \"curve.csv\": line 3: second 1 is missing"),
            (&[CURVE], "second,rate\n0,1\n0,1\n", "open.curve \"curve.csv\": line 3: second 0 goes back in time"),
            (&[CURVE], "second,rate\n0,-1\n", "open.curve \"curve.csv\": line 2: the rate must be 0..=20000"),
            (&[CURVE], &csv(14, "1"), "open.curve is refused: the curve has 14 seconds, but the measured part has 15"),
            (&[CURVE], &csv(16, "1"), "open.curve has 16 seconds, but measure_s is 15"),
            (&[CURVE], &csv(15, "150"), "line 2: second 0 of the step of 200 requests/s would have 30000 requests/s"),
        ] {
            let error = with(changes, csv).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
