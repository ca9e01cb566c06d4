//! The cells of a run: the map by bisection, then what each cure and all of them change. What comes next depends only on the cells so far.

use std::collections::BTreeSet;

use super::{
    bisect::{Boundary, Search, Step, Tried},
    cell::{HOLD_S, State},
    classes::{Class, Trigger},
    cures::{self, Cure},
    journal::{Cell, Key},
    judgement::{CONTRAST, Measured, Prediction, STUCK_S},
    prediction,
    runner::{Request, Runner},
};

const QUICK_HOLD_S: u32 = 15;
const LOWERED_S: u32 = 15;
/// Low as a share of high.
const PRECISION: f64 = 0.7;
/// Triggers beyond the boundary: for the proof, and for each cure.
const PROOF: f64 = 1.25;
const CURED: [f64; 2] = [1.5, 3.0];

/// What is asked for on the command line.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub seeds: u64,
    pub scale: u32,
}

/// All cells of a class.
///
/// # Errors
/// A cell cannot be measured.
pub async fn whole(runner: &mut Runner<'_>, settings: Settings, measured: &mut Measured) -> anyhow::Result<()> {
    let class = runner.class;
    let [low, high] = class.loads(settings.scale);
    for per_s in [low, high] {
        predict(runner, per_s, &cures::NONE, settings.scale, measured)?;
    }
    for per_s in [low, high] {
        for seed in 1..=settings.seeds {
            bisect(runner, (per_s, seed), precision(class, per_s == high), measured).await?;
        }
    }
    let boundary = highest_boundary(measured, class, high, settings.seeds);
    for (boundary, seed) in boundary.iter().flat_map(|boundary| (1..=settings.seeds).map(|seed| (*boundary, seed))) {
        let key = key(class, high, beyond(class, boundary, PROOF), seed, &cures::NONE, STUCK_S);
        runner.cell(Request { lowered_s: LOWERED_S, traced: seed == 1, ..Request::of(key) }, measured).await?;
    }
    if class.trigger == Trigger::Stall {
        let key = Key { closed: true, ..key(class, high, class.largest, 1, &cures::NONE, HOLD_S) };
        runner.cell(Request::of(key), measured).await?;
    }
    for (per_s, size, seed) in not_recovered(measured, class) {
        runner.cell(Request::of(key(class, per_s, size, seed, &cures::ALL_ON, HOLD_S)), measured).await?;
    }
    let Some(boundary) = boundary else { return Ok(()) };
    for cure in &cures::ALL {
        if cure.is_modelled {
            predict(runner, high, cure, settings.scale, measured)?;
        }
        let sizes: BTreeSet<u32> = CURED.map(|factor| beyond(class, boundary, factor)).into();
        for size in sizes {
            let cell = runner.cell(Request::of(key(class, high, size, 1, cure, HOLD_S)), measured).await?;
            if cell.judged.state != State::Recovered {
                break;
            }
        }
    }
    Ok(())
}

/// One cell that should be stuck, and the same with all cures on.
///
/// # Errors
/// A cell cannot be measured.
pub async fn quick(runner: &mut Runner<'_>, settings: Settings, measured: &mut Measured) -> anyhow::Result<()> {
    let class = runner.class;
    let [_, high] = class.loads(settings.scale);
    let predicted = predict(runner, high, &cures::NONE, settings.scale, measured)?;
    let size = beyond(class, predicted.and_then(|boundary| boundary.high).unwrap_or(class.largest), CURED[0]);
    for cure in [&cures::NONE, &cures::ALL_ON] {
        let lowered_s = if cure.name == cures::NONE.name { LOWERED_S } else { 0 };
        let key = key(class, high, size, 1, cure, QUICK_HOLD_S);
        runner.cell(Request { lowered_s, traced: true, ..Request::of(key) }, measured).await?;
    }
    Ok(())
}

fn key(class: &Class, per_s: u32, size: u32, seed: u64, cure: &Cure, hold_s: u32) -> Key {
    Key { class: class.name.into(), per_s, size, seed, cure: cure.name.into(), hold_s, closed: false }
}

fn predict(
    runner: &Runner<'_>,
    per_s: u32,
    cure: &Cure,
    scale: u32,
    measured: &mut Measured,
) -> anyhow::Result<Option<Boundary>> {
    let class = runner.class;
    let boundary = prediction::boundary(class, &cure.scenario(class.scenario(scale)?), per_s, scale);
    let side = |size: Option<u32>| size.map_or("none".into(), |size| class.size_text(size));
    if let Some(Boundary { low, high }) = boundary {
        let name = class.name;
        eprintln!(
            "{name} at {per_s} requests/s, cure {}: by the model {} recover, {} do not",
            cure.name,
            side(low),
            side(high)
        );
    }
    let prediction =
        boundary.map(|boundary| Prediction { class: class.name.into(), per_s, cure: cure.name.into(), boundary });
    measured.predictions.extend(prediction);
    Ok(boundary)
}

async fn bisect(
    runner: &mut Runner<'_>,
    (per_s, seed): (u32, u64),
    precision: f64,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let class = runner.class;
    let predicted = measured.predicted(class, per_s, cures::NONE.name).and_then(Boundary::middle);
    let search = Search { expected: predicted.map(|size| size as u32), largest: class.largest, precision };
    let mut tried = Vec::new();
    while let Step::Try(size) = search.next(&tried) {
        let cell = runner.cell(Request::of(key(class, per_s, size, seed, &cures::NONE, HOLD_S)), measured).await?;
        tried.push(Tried { size, recovered: cell.judged.state == State::Recovered });
    }
    Ok(())
}

/// The contrast of OSDI 2022's artefact is looked for at the higher load.
fn precision(class: &Class, is_high: bool) -> f64 {
    if class.trigger == Trigger::Slow && is_high { CONTRAST } else { PRECISION }
}

/// The smallest trigger from which no seed recovered; `None`: a seed recovered from all.
fn highest_boundary(measured: &Measured, class: &Class, per_s: u32, seeds: u64) -> Option<u32> {
    (1..=seeds).try_fold(0, |most: u32, seed| Some(most.max(measured.boundary(class, per_s, seed).high?)))
}

fn beyond(class: &Class, boundary: u32, factor: f64) -> u32 {
    ((f64::from(boundary) * factor) as u32).clamp(1, class.largest)
}

fn not_recovered(measured: &Measured, class: &Class) -> BTreeSet<(u32, u32, u64)> {
    let is_one = |cell: &&Cell| cell.judged.state != State::Recovered;
    measured.map(class).filter(is_one).map(|cell| (cell.key.per_s, cell.key.size, cell.key.seed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::metastable::{classes, judgement::tests::measured};

    #[test]
    fn cures_are_tried_beyond_the_boundary_of_every_seed() {
        let class = classes::of("cold-cache");
        let measured = measured(class.name);
        assert_eq!(highest_boundary(&measured, class, 900, 2), Some(1_100));
        assert_eq!(highest_boundary(&measured, class, 900, 3), None, "the third seed has no boundary");
        assert_eq!((beyond(class, 600, 1.5), beyond(class, 1_100, 3.0)), (900, 1_000));
        let expected = [(900, 1_100, 1), (900, 1_100, 2), (900, 1_400, 1), (900, 1_400, 2)];
        assert_eq!(not_recovered(&measured, class), BTreeSet::from(expected));
    }
}
