//! The verdicts of the map, the cures and the control. Pure.

use report::Verdict;
use serde::Serialize;

use super::{
    bisect::{Boundary, Tried},
    cell::State,
    classes::{self, Class, Trigger},
    cures,
    journal::Cell,
};

/// Seconds that a cell must be stuck.
pub const STUCK_S: u32 = 60;
/// First tries after the trigger, in percent of those before it.
const FIRST_TRIES_PCT: f64 = 10.0;
/// After the load was lowered.
const MAX_BACK_S: u32 = 10;
/// Of the model's boundary.
const MODEL_PCT: f64 = 25.0;
/// Cells nearer to the boundary than this may be on either side.
const NEAR_PCT: f64 = 10.0;
const MIN_AGREEMENT_PCT: f64 = 95.0;
/// The artefact of OSDI 2022: 10 s stick, 9 s recover.
pub const CONTRAST: f64 = 0.9;
const MAX_CURED_S: f64 = 5.0;

/// The model's boundary of a class at a rate, with a cure or without.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    pub class: String,
    pub per_s: u32,
    pub cure: String,
    pub boundary: Boundary,
}

/// All that was computed and measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Measured {
    pub seeds: u64,
    pub predictions: Vec<Prediction>,
    pub cells: Vec<Cell>,
}

impl Measured {
    pub fn classes(&self) -> impl Iterator<Item = &'static Class> {
        classes::ALL.iter().filter(|class| self.cells.iter().any(|cell| cell.key.class == class.name))
    }

    /// Of the map: open arrivals without a cure.
    pub fn map(&self, class: &Class) -> impl Iterator<Item = &Cell> {
        self.of(class, cures::NONE.name).filter(|cell| !cell.key.closed)
    }

    pub fn of(&self, class: &Class, cure: &str) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| cell.key.class == class.name && cell.key.cure == cure)
    }

    /// Rates of the map, ascending.
    pub fn loads(&self, class: &Class) -> Vec<u32> {
        let mut loads: Vec<u32> = self.map(class).map(|cell| cell.key.per_s).collect();
        loads.sort_unstable();
        loads.dedup();
        loads
    }

    pub fn boundary(&self, class: &Class, per_s: u32, seed: u64) -> Boundary {
        let of_seed = self.map(class).filter(|cell| cell.key.per_s == per_s && cell.key.seed == seed);
        Boundary::of(&of_seed.map(tried).collect::<Vec<_>>())
    }

    /// Median over the seeds that have one.
    pub fn middle(&self, class: &Class, per_s: u32) -> Option<f64> {
        let middles: Vec<f64> =
            (1..=self.seeds).filter_map(|seed| self.boundary(class, per_s, seed).middle()).collect();
        statistics::median(&middles)
    }

    pub fn predicted(&self, class: &Class, per_s: u32, cure: &str) -> Option<Boundary> {
        let is_it = |one: &&Prediction| one.class == class.name && one.per_s == per_s && one.cure == cure;
        self.predictions.iter().find(is_it).map(|one| one.boundary)
    }
}

fn tried(cell: &Cell) -> Tried {
    Tried { size: cell.key.size, recovered: cell.judged.state == State::Recovered }
}

pub fn verdicts(measured: &Measured) -> Vec<Verdict> {
    let mut all = Vec::new();
    for class in measured.classes() {
        all.push(outlives(measured, class));
        all.push(hysteresis(measured, class));
        all.extend(measured.loads(class).into_iter().map(|per_s| beside_model(measured, class, per_s)));
    }
    all.push(agreement(measured));
    all.extend(contrast(measured));
    all.extend(budget(measured));
    all.push(cured(measured));
    all.extend(control(measured));
    all
}

fn outlives(measured: &Measured, class: &Class) -> Verdict {
    let stuck_of = |seed: u64| {
        measured.map(class).filter(move |cell| {
            cell.key.seed == seed && cell.judged.state == State::Stuck && cell.key.hold_s >= STUCK_S
        })
    };
    let recovers_below = |stuck: &Cell| {
        measured.map(class).any(|cell| {
            cell.judged.state == State::Recovered
                && (cell.key.seed, cell.key.per_s) == (stuck.key.seed, stuck.key.per_s)
                && cell.key.size < stuck.key.size
        })
    };
    let seeds = || 1..=measured.seeds;
    let stuck = seeds().filter(|seed| stuck_of(*seed).next().is_some()).count() as u64;
    let recovered = seeds().filter(|seed| stuck_of(*seed).any(recovers_below)).count() as u64;
    let verdict = Verdict::new(
        &format!("{}: stuck {STUCK_S} s after its trigger, and recovered from a smaller one", class.name),
        format!("both with {} of {} seeds", measured.seeds, measured.seeds),
        format!("stuck with {stuck}, recovered with {recovered}"),
        stuck == measured.seeds && recovered == measured.seeds,
        "",
    );
    valid(verdict, measured.map(class))
}

fn hysteresis(measured: &Measured, class: &Class) -> Verdict {
    let is_one = |cell: &&Cell| cell.judged.state == State::Stuck && cell.timing.lowered_s > 0;
    let stuck: Vec<&Cell> = measured.map(class).filter(is_one).collect();
    let back = stuck.iter().map(|cell| cell.judged.back_s.unwrap_or(u32::MAX)).max();
    let changed = stuck.iter().map(|cell| (cell.judged.first_tries_pct - 100.0).abs()).fold(0.0, f64::max);
    let is_back = back.is_some_and(|back| back <= MAX_BACK_S);
    let text = match back {
        None => "no cell was stuck".to_owned(),
        Some(u32::MAX) => "not back within the cell".to_owned(),
        Some(back) => format!("back after {back} s"),
    };
    let verdict = Verdict::new(
        &format!("{}: back once the load is lowered", class.name),
        format!("≤ {MAX_BACK_S} s, with first tries within {FIRST_TRIES_PCT:.0} % of before"),
        format!("{text}, first tries {changed:.1} % off"),
        is_back && changed <= FIRST_TRIES_PCT,
        "the slowest of the stuck cells",
    );
    valid(verdict, stuck.into_iter())
}

fn beside_model(measured: &Measured, class: &Class, per_s: u32) -> Verdict {
    let middle = measured.middle(class, per_s);
    let predicted = measured.predicted(class, per_s, cures::NONE.name).and_then(Boundary::middle);
    let off = middle.zip(predicted).map(|(middle, predicted)| 100.0 * (middle / predicted - 1.0));
    let found = (1..=measured.seeds).filter(|seed| measured.boundary(class, per_s, *seed).middle().is_some()).count();
    let text = |size: Option<f64>| size.map_or("none".into(), |size| class.size_text(size.round() as u32));
    let verdict = Verdict::new(
        &format!("{}: boundary at {per_s} requests/s beside the model's", class.name),
        format!("within {MODEL_PCT} %"),
        off.map_or("no boundary to compare".into(), |off| format!("{off:+.0} %")),
        found as u64 == measured.seeds && off.is_some_and(|off| off.abs() <= MODEL_PCT),
        &format!(
            "measured {} (median of {found} of {} seeds), model {}",
            text(middle),
            measured.seeds,
            text(predicted)
        ),
    );
    valid(verdict, measured.map(class).filter(|cell| cell.key.per_s == per_s))
}

/// Every seed agrees on a cell if all are on the same side of the common boundary.
fn agreement(measured: &Measured) -> Verdict {
    let (mut far, mut agree) = (0_u32, 0_u32);
    for class in measured.classes() {
        for cell in measured.map(class) {
            let Some(middle) = measured.middle(class, cell.key.per_s) else { continue };
            let off = f64::from(cell.key.size) / middle - 1.0;
            if 100.0 * off.abs() > NEAR_PCT {
                far += 1;
                agree += u32::from((off < 0.0) == (cell.judged.state == State::Recovered));
            }
        }
    }
    let pct = 100.0 * f64::from(agree) / f64::from(far.max(1));
    let verdict = Verdict::new(
        &format!("Same verdict with all seeds, further than {NEAR_PCT} % from the boundary"),
        format!("≥ {MIN_AGREEMENT_PCT} % of the cells"),
        format!("{agree} of {far} cells"),
        far > 0 && pct >= MIN_AGREEMENT_PCT,
        "the boundary is the median of the seeds'",
    );
    if measured.seeds < 2 {
        let note = "stated, not judged: one seed agrees with its own boundary".into();
        return Verdict { passed: None, note, ..verdict };
    }
    valid(verdict, measured.classes().flat_map(|class| measured.map(class)))
}

fn contrast(measured: &Measured) -> Option<Verdict> {
    let class = measured.classes().find(|class| class.trigger == Trigger::Slow)?;
    let per_s = measured.loads(class).pop()?;
    let found: Vec<Boundary> = (1..=measured.seeds).map(|seed| measured.boundary(class, per_s, seed)).collect();
    let sharp = found.iter().filter(|boundary| boundary.precision().is_some_and(|precision| precision >= CONTRAST));
    let count = sharp.count() as u64;
    let side = |size: Option<u32>| size.map_or("none".into(), |size| class.size_text(size));
    let places: Vec<String> =
        found.iter().map(|boundary| format!("{} recover, {} stick", side(boundary.low), side(boundary.high))).collect();
    let verdict = Verdict::new(
        "A tenth more of a trigger decides, as in the artefact of OSDI 2022",
        format!("with {} of {} seeds", measured.seeds, measured.seeds),
        format!("with {count}"),
        count == measured.seeds,
        &format!("80 % less capacity at {per_s} requests/s: {}", places.join("; ")),
    );
    Some(valid(verdict, measured.map(class).filter(|cell| cell.key.per_s == per_s)))
}

/// Stated, not judged: a share of 20 % more than the load may exceed the capacity.
fn budget(measured: &Measured) -> Option<Verdict> {
    let class = measured.classes().find(|class| class.trigger == Trigger::Stall)?;
    let cell = measured.of(class, "retry budget 20 %").max_by_key(|cell| cell.key.size)?;
    let Cell { key, judged, .. } = cell;
    let after = judged.recovery_s.map_or_else(String::new, |after_s| format!(" after {after_s:.1} s"));
    Some(Verdict {
        name: format!("A retry budget of 20 % at {} requests/s", key.per_s),
        expected: "stuck: the load and a fifth of it exceed the store's capacity".into(),
        measured: format!("{}{after}", judged.state.text()),
        passed: None,
        note: format!("stated, not judged: a stall of {}", class.size_text(key.size)),
        undecided: false,
    })
}

fn cured(measured: &Measured) -> Verdict {
    let cells: Vec<&Cell> = measured.cells.iter().filter(|cell| cell.key.cure == cures::ALL_ON.name).collect();
    let trigger = |cell: &Cell| (cell.key.class.clone(), cell.key.per_s, cell.key.size, cell.key.seed);
    let repeated: Vec<_> = cells.iter().map(|cell| trigger(cell)).collect();
    let of_map = measured.classes().flat_map(|class| measured.map(class));
    let missing =
        of_map.filter(|cell| cell.judged.state != State::Recovered && !repeated.contains(&trigger(cell))).count();
    let is_cured = |cell: &&&Cell| cell.judged.recovery_s.is_some_and(|after_s| after_s <= MAX_CURED_S);
    let count = cells.iter().filter(is_cured).count();
    let slowest = cells.iter().map(|cell| cell.judged.recovery_s.unwrap_or(f64::INFINITY)).fold(0.0, f64::max);
    let slowest =
        if slowest.is_finite() { format!("slowest after {slowest:.1} s") } else { "some do not recover".into() };
    let verdict = Verdict::new(
        "All cures on: recovered from every trigger that was too much without them",
        format!("100 % of the cells within {MAX_CURED_S} s"),
        format!("{count} of {} cells", cells.len() + missing),
        missing == 0 && !cells.is_empty() && count == cells.len(),
        &slowest,
    );
    valid(verdict, cells.into_iter())
}

fn control(measured: &Measured) -> Option<Verdict> {
    let cell = measured.cells.iter().find(|cell| cell.key.closed)?;
    let after = cell.judged.recovery_s.map_or("not within the cell".into(), |after_s| format!("after {after_s:.1} s"));
    let verdict = Verdict::new(
        "Control: the closed users of the article recover",
        "from the longest stall".into(),
        format!("{} {after}", cell.judged.state.text()),
        cell.judged.state == State::Recovered,
        &format!(
            "{} users have at most as many requests in flight, and a user that waits sends nothing: the load falls with the goodput",
            cell.key.per_s
        ),
    );
    Some(valid(verdict, std::iter::once(cell)))
}

/// Undecided if one of the cells is not valid.
fn valid<'a>(verdict: Verdict, mut cells: impl Iterator<Item = &'a Cell>) -> Verdict {
    match cells.find(|cell| !cell.validity.is_valid()) {
        Some(invalid) => verdict.within(&invalid.validity),
        None => verdict,
    }
}

#[cfg(test)]
pub mod tests {
    use report::Validity;

    use super::*;
    use crate::experiments::metastable::journal::tests::cell;

    const RECOVERED: &[(usize, u64)] = &[(3, 100), (4, 0), (5, 100)];
    const STUCK: &[(usize, u64)] = &[(3, 100), (22, 10), (2, 60), (5, 100)];

    /// A map of one class with two seeds whose boundary is between 1,000 and 1,100.
    pub fn measured(class: &str) -> Measured {
        let mut cells = Vec::new();
        for seed in [1, 2] {
            cells.push(cell(class, (900, 1_000, seed), "none", RECOVERED));
            cells.push(cell(class, (900, 1_100, seed), "none", STUCK));
            let mut proof = cell(class, (900, 1_400, seed), "none", STUCK);
            proof.key.hold_s = STUCK_S;
            cells.push(proof);
            for size in [1_100, 1_400] {
                cells.push(cell(class, (900, size, seed), "all", &[(3, 100), (2, 0), (5, 100)]));
            }
        }
        let boundary = Boundary { low: Some(990), high: Some(1_010) };
        let prediction = Prediction { class: class.into(), per_s: 900, cure: "none".into(), boundary };
        Measured { seeds: 2, predictions: vec![prediction], cells }
    }

    fn passed(measured: &Measured) -> Vec<Option<bool>> {
        verdicts(measured).iter().map(|verdict| verdict.passed).collect()
    }

    #[test]
    fn a_map_as_expected_passes() {
        let all = verdicts(&measured("capacity-loss"));
        assert!(all.iter().all(|verdict| verdict.passed == Some(true)), "{all:#?}");
        assert_eq!(all.len(), 6);
        assert_eq!(all[2].measured, "+5 %");
        assert!(all[4].note.contains("1.00 s recover, 1.10 s stick"), "{}", all[4].note);
    }

    #[test]
    fn each_miss_is_said() {
        let good = measured("capacity-loss");
        let missed = |change: fn(&mut Measured)| {
            let mut measured = good.clone();
            change(&mut measured);
            passed(&measured).iter().position(|passed| *passed == Some(false))
        };
        assert_eq!(missed(|m| m.cells.retain(|cell| cell.key.seed == 1 || cell.key.hold_s < STUCK_S)), Some(0));
        assert_eq!(missed(|m| m.cells.iter_mut().for_each(|cell| cell.judged.back_s = Some(11))), Some(1));
        assert_eq!(missed(|m| m.cells.iter_mut().for_each(|cell| cell.judged.first_tries_pct = 80.0)), Some(1));
        assert_eq!(missed(|m| m.predictions[0].boundary = Boundary { low: Some(1_400), high: Some(1_500) }), Some(2));
        assert_eq!(missed(|m| m.predictions.clear()), Some(2));
        assert_eq!(missed(|m| m.cells.push(cell("capacity-loss", (900, 1_300, 1), "none", RECOVERED))), Some(3));
        assert_eq!(
            missed(|m| m.cells.iter_mut().for_each(|cell| if cell.key.size == 1_100 {
                cell.key.size = 1_200
            })),
            Some(4)
        );
        assert_eq!(missed(|m| m.cells.iter_mut().for_each(|cell| cell.judged.recovery_s = Some(5.1))), Some(5));
    }

    #[test]
    fn an_invalid_cell_leaves_its_verdicts_open() {
        let mut measured = measured("retry-storm");
        measured.cells[0].validity = Validity::of(1.0, 97.0);
        let all = verdicts(&measured);
        let undecided: Vec<bool> = all.iter().map(|verdict| verdict.undecided).collect();
        // The stuck cells and the cured ones are valid.
        assert_eq!(undecided, [true, false, true, true, false], "{all:#?}");
    }

    #[test]
    fn the_budget_is_stated_and_the_control_judged() {
        let mut measured = measured("retry-storm");
        measured.cells.push(cell("retry-storm", (900, 1_650, 1), "retry budget 20 %", STUCK));
        let mut closed = cell("retry-storm", (900, 10_000, 1), "none", RECOVERED);
        closed.key.closed = true;
        measured.cells.push(closed);
        let all = verdicts(&measured);
        let budget = all.iter().find(|verdict| verdict.name.starts_with("A retry budget")).unwrap();
        assert_eq!((budget.measured.as_str(), budget.passed), ("stuck", None));
        let control = all.last().unwrap();
        assert!(control.passed == Some(true) && control.note.starts_with("900 users"), "{control:?}");
    }
}
