//! Measures the cells of one class, or takes them from the journal. The stack starts with the first cell that is measured.

use loadtest::{arrivals::Arrivals, scenario::Scenario};

use super::{
    cell::Timing,
    classes::Class,
    cures::{self, Cure},
    journal::{Cell, Journal, Key},
    judgement::Measured,
    run::{CellStack, Wanted},
};

/// Of every cell, before its trigger.
const BEFORE_S: u32 = 3;
/// Of users that wait for their answers, in milliseconds.
const CONTROL_TIMEOUT_MS: u64 = 3_000;

/// A cell, and how it is measured.
pub struct Request {
    pub key: Key,
    pub lowered_s: u32,
    pub traced: bool,
}

impl Request {
    pub fn of(key: Key) -> Self {
        Self { key, lowered_s: 0, traced: false }
    }

    fn timing(&self, class: &Class) -> Timing {
        Timing {
            before_s: BEFORE_S,
            trigger_ms: class.trigger_ms(self.key.size),
            hold_s: self.key.hold_s,
            lowered_s: self.lowered_s,
        }
    }

    /// Client and store of the cell.
    fn scenario(&self, uncured: &Scenario, cure: &Cure) -> Scenario {
        let mut scenario = cure.scenario(uncured.clone());
        if self.key.closed {
            (scenario.arrivals, scenario.retry, scenario.timeout_ms) = (Arrivals::Closed, None, CONTROL_TIMEOUT_MS);
        }
        scenario
    }
}

pub struct Runner<'a> {
    pub class: &'static Class,
    scale: u32,
    /// A cell that is not valid is measured again, up to this number of times in all.
    attempts: u32,
    /// Without a cure.
    scenario: Scenario,
    journal: &'a mut Journal,
    stack: Option<CellStack>,
    /// Of the replicas that run.
    cure: Option<String>,
}

impl<'a> Runner<'a> {
    /// # Errors
    /// The built-in scenario is broken.
    pub fn new(class: &'static Class, (scale, attempts): (u32, u32), journal: &'a mut Journal) -> anyhow::Result<Self> {
        Ok(Self { class, scale, attempts, scenario: class.scenario(scale)?, journal, stack: None, cure: None })
    }

    /// # Errors
    /// The stack cannot be started, a process ended during the cell, or the journal cannot be written.
    pub async fn cell(&mut self, request: Request, measured: &mut Measured) -> anyhow::Result<Cell> {
        if let Some(cell) = self.journal.find(&request.key) {
            measured.cells.push(cell.clone());
            return Ok(cell.clone());
        }
        let mut cell = self.measure(&request).await?;
        for _again in 1..self.attempts {
            if !cell.validity.is_valid() {
                eprintln!("  {}: again", cell.validity.note());
                cell = self.measure(&request).await?;
            }
        }
        self.journal.append(&cell)?;
        measured.cells.push(cell.clone());
        Ok(cell)
    }

    async fn measure(&mut self, request: &Request) -> anyhow::Result<Cell> {
        let cure = cures::of(&request.key.cure).unwrap_or(&cures::NONE);
        let mut stack = match self.stack.take() {
            Some(stack) => stack,
            None => {
                eprintln!("{}: starting servers", self.class.name);
                CellStack::start(self.class, &self.scenario, self.scale).await?
            }
        };
        if self.cure.as_deref() != Some(cure.name) {
            stack.configure(cure).await?;
            self.cure = Some(cure.name.to_owned());
        }
        let scenario = request.scenario(&self.scenario, cure);
        let wanted = Wanted {
            key: request.key.clone(),
            scenario: &scenario,
            timing: request.timing(self.class),
            lowered_per_s: self.class.lowered_per_s(&self.scenario),
            traced: request.traced,
        };
        let cell = stack.cell(wanted).await?;
        self.stack = Some(stack);
        eprintln!("{}", self.line(&cell));
        Ok(cell)
    }

    fn line(&self, cell: &Cell) -> String {
        let Cell { key, judged, .. } = cell;
        let after = judged.recovery_s.map_or_else(String::new, |after_s| format!(" after {after_s:.1} s"));
        let back =
            judged.back_s.map_or_else(String::new, |back_s| format!(", back {back_s} s after the load was lowered"));
        format!(
            "{} at {} requests/s, trigger {}, cure {}, seed {}: {}{after}, goodput {:.0} %, {:.2} tries per request{back}",
            key.class,
            key.per_s,
            self.class.size_text(key.size),
            key.cure,
            key.seed,
            judged.state.text(),
            judged.goodput_pct,
            judged.tries_per_request
        )
    }

    /// # Errors
    /// A process does not end.
    pub async fn stop(self) -> anyhow::Result<()> {
        match self.stack {
            Some(stack) => stack.stop().await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::metastable::classes;

    #[test]
    fn the_control_has_users_that_wait_and_do_not_retry() {
        let class = classes::of("retry-storm");
        let key = Key {
            class: class.name.into(),
            per_s: 900,
            size: 1_000,
            seed: 1,
            cure: "none".into(),
            hold_s: 10,
            closed: false,
        };
        let open = Request::of(key);
        let uncured = class.scenario(1).unwrap();
        assert_eq!(open.scenario(&uncured, &cures::NONE), uncured);
        let closed = Request::of(Key { closed: true, ..open.key.clone() }).scenario(&uncured, &cures::NONE);
        assert!(closed.arrivals.is_closed() && closed.retry.is_none());
        assert_eq!((open.timing(class).trigger_ms, open.timing(class).lowered_from()), (1_000, 19));
    }
}
