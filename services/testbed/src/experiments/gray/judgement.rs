//! Figures of a fault, and the verdicts. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use heartbeat::assign::{NodeId, Table};
use report::Verdict;
use serde::Serialize;

use super::faults::{Expected, GrayFault};

/// A fault is handled when users are served again after this time, and until its end.
pub const HANDLED_WITHIN_S: f64 = 7.0;
const MAX_CHANGES: usize = 2;
const MIN_HANDLED_KINDS: usize = 11;
const KINDS: usize = 12;
/// Errors are judged over windows of this length: about 320 writes.
const WINDOW: Duration = Duration::from_secs(2);
const WINDOW_STEP: Duration = Duration::from_millis(500);
const MAX_ERROR_SHARE: f64 = 0.01;
/// Of about 320 writes in the two seconds before the fault: fewer than 1 %.
const MAX_ERRORS_BEFORE: usize = 3;
/// Share of the planned writes that must have begun: fewer show that this machine was busy with other work.
const MIN_BEGUN: f64 = 0.95;

/// What the monitors act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Defence {
    /// Heartbeats, the workers' reports, and the complaints of requesters.
    All,
    /// Only heartbeats and probes.
    Heartbeats,
}

/// What showed that a worker does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// Missing heartbeats and unanswered probes.
    Heartbeats,
    /// The worker's own report.
    Report,
    /// Complaints of requesters.
    Requesters,
}

/// The monitors acted against a worker.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sign {
    /// Seconds since the begin of the fault.
    pub after_s: f64,
    pub evidence: Evidence,
}

/// A new partition table, compared with the one before it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableChange {
    /// Seconds since the begin of the fault.
    pub after_s: f64,
    /// Partitions with another primary.
    pub moved: usize,
    /// Partitions whose planned move began.
    pub planned: usize,
    pub offline: Vec<NodeId>,
    pub admitted: Vec<NodeId>,
}

impl TableChange {
    pub fn between(after_s: f64, before: &Table, after: &Table) -> Self {
        let switched = |online| {
            let switched = after
                .nodes
                .iter()
                .filter(move |(node, membership)| membership.online == online && before.is_online(node) != online);
            switched.map(|(node, _)| node.clone()).collect()
        };
        let pairs = before.partitions.iter().zip(&after.partitions);
        let planned = pairs.filter(|(before, after)| after.successor.is_some() && before.successor != after.successor);
        Self {
            after_s,
            moved: moved(before, after),
            planned: planned.count(),
            offline: switched(false),
            admitted: switched(true),
        }
    }
}

/// One write of a client.
#[derive(Debug, Clone, Copy)]
pub struct Write {
    /// Of its begin.
    pub at: Duration,
    pub succeeded: bool,
}

/// One fault under one defence.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub fault: GrayFault,
    pub defence: Defence,
    pub seconds: f64,
    /// The first act against the victim.
    pub detected: Option<Sign>,
    /// Until users were served again; `None`: not before the end. 0: no window had too many errors.
    pub served_after_s: Option<f64>,
    /// Workers that were taken off-line or lost partitions without a fault of their own.
    pub false_removals: usize,
    /// New partition tables, in order.
    pub tables: Vec<TableChange>,
    /// Partitions that had another primary at the end.
    pub moved: usize,
    pub writes: usize,
    /// Writes that should have begun.
    pub planned: usize,
    /// In the two seconds before the fault.
    pub errors_before: usize,
    pub errors: usize,
    /// Seconds with at least one error.
    pub error_seconds: usize,
}

impl Measured {
    pub fn is_handled(&self) -> bool {
        let is_served = self.served_after_s.is_some_and(|after| after <= HANDLED_WITHIN_S);
        let stays = self.moved == 0 && self.tables.is_empty();
        is_served && self.false_removals == 0 && (stays || self.fault.expected() == Expected::Serves)
    }

    /// Whether the figures are those of the fault, and not of a busy machine.
    pub fn is_valid(&self) -> bool {
        self.errors_before <= MAX_ERRORS_BEFORE && self.writes as f64 >= MIN_BEGUN * self.planned as f64
    }

    pub fn error_share(&self) -> f64 {
        if self.writes == 0 { 1.0 } else { self.errors as f64 / self.writes as f64 }
    }

    pub fn text(&self) -> String {
        let detected = self.detected.map_or("-".into(), |sign| format!("{:.1} s ({:?})", sign.after_s, sign.evidence));
        let served = self.served_after_s.map_or("never".into(), |after| format!("after {after:.1} s"));
        let (Self { false_removals, moved, writes, errors, error_seconds, .. }, changes) = (self, self.tables.len());
        let validity = if self.is_valid() { "" } else { "; INVALID: the machine was busy with other work" };
        format!(
            "detected {detected}, served {served}, {changes} changes, {moved} moved, {false_removals} false removals, \
             {errors} of {writes} writes failed in {error_seconds} s{validity}"
        )
    }
}

/// Seconds from the begin of the fault until no window has too many errors any more. `None`: the last window has.
pub fn served_after_s(writes: &[Write], seconds: f64) -> Option<f64> {
    let starts = (0..).map(|n| WINDOW_STEP * n).take_while(|start| (*start + WINDOW).as_secs_f64() <= seconds);
    let windows: Vec<(f64, bool)> = starts
        .map(|start| {
            let within = writes.iter().filter(|write| (start..start + WINDOW).contains(&write.at));
            let (mut all, mut failed) = (0, 0);
            within.for_each(|write| {
                all += 1;
                failed += usize::from(!write.succeeded);
            });
            // Clients that begin no writes are not served either.
            let is_bad = all == 0 || f64::from(failed as u32) >= MAX_ERROR_SHARE * f64::from(all as u32);
            (start.as_secs_f64(), is_bad)
        })
        .collect();
    let Some(last_bad) = windows.iter().rposition(|(_, is_bad)| *is_bad) else { return Some(0.0) };
    windows.get(last_bad + 1).map(|(start, _)| *start)
}

pub fn error_seconds(writes: &[Write]) -> usize {
    let seconds: BTreeSet<u64> =
        writes.iter().filter(|write| !write.succeeded).map(|write| write.at.as_secs()).collect();
    seconds.len()
}

/// Healthy workers against which the monitors acted. If nothing should be moved, every worker is healthy.
pub fn false_removals(signs: &BTreeMap<NodeId, Sign>, victim: &str, expected: Expected) -> usize {
    signs.keys().filter(|node| expected == Expected::Stays || &***node != victim).count()
}

/// Partitions whose primary differs.
pub fn moved(before: &Table, after: &Table) -> usize {
    before.partitions.iter().zip(&after.partitions).filter(|(before, after)| before.primary != after.primary).count()
}

/// The kinds of which every strength that was measured is handled, and the kinds measured.
pub fn handled_kinds(all: &[Measured], defence: Defence) -> (usize, usize) {
    let mut kinds = BTreeMap::<usize, bool>::new();
    for one in all.iter().filter(|one| one.defence == defence) {
        *kinds.entry(one.fault.kind()).or_insert(true) &= one.is_handled();
    }
    (kinds.values().filter(|handled| **handled).count(), kinds.len())
}

/// Only the defence with all evidence is judged: the other is there to compare with.
pub fn verdicts(all: &[Measured], quick: bool) -> Vec<Verdict> {
    let judged: Vec<&Measured> = all.iter().filter(|one| one.defence == Defence::All).collect();
    let (handled, kinds) = handled_kinds(all, Defence::All);
    // A run of some faults may not miss more of them than a run of all.
    let needed = kinds.saturating_sub(KINDS - MIN_HANDLED_KINDS).max(usize::from(kinds > 0));
    let removals: usize = judged.iter().map(|one| one.false_removals).sum();
    let most_changes = judged.iter().map(|one| one.tables.len()).max().unwrap_or_default();
    let invalid = judged.iter().filter(|one| !one.is_valid()).count();
    let note = match (quick, invalid) {
        (true, _) => "quick run, not judged".to_owned(),
        (false, 0) => String::new(),
        (false, count) => format!("the machine was busy with other work during {count} faults"),
    };
    let verdict = |name: &str, expected: String, measured: String, passed: bool| Verdict {
        name: name.into(),
        expected,
        measured,
        passed: (!quick && kinds > 0 && invalid == 0).then_some(passed),
        note: note.clone(),
        undecided: !quick && invalid > 0,
    };
    vec![
        verdict(
            &format!("kinds of faults handled within {HANDLED_WITHIN_S} s"),
            format!("≥ {needed} of {kinds}"),
            format!("{handled} of {kinds}"),
            handled >= needed,
        ),
        verdict("healthy workers removed", "0".into(), removals.to_string(), removals == 0),
        verdict(
            "changes of the table for one fault, at most",
            format!("≤ {MAX_CHANGES}"),
            most_changes.to_string(),
            most_changes <= MAX_CHANGES,
        ),
    ]
}

#[cfg(test)]
pub mod tests {
    use heartbeat::assign::Membership;

    use super::*;

    /// Ten writes a second; those that begin between two of these times fail.
    fn writes(seconds: u64, failing_ms: &[(u64, u64)]) -> Vec<Write> {
        let write = |n: u64| Write {
            at: Duration::from_millis(100 * n),
            succeeded: !failing_ms.iter().any(|&(from, to)| (from..to).contains(&(100 * n))),
        };
        (0..10 * seconds).map(write).collect()
    }

    pub fn measured(fault: GrayFault, defence: Defence, served_after_s: Option<f64>) -> Measured {
        Measured {
            fault,
            defence,
            seconds: 25.0,
            detected: Some(Sign { after_s: 2.0, evidence: Evidence::Report }),
            served_after_s,
            false_removals: 0,
            tables: Vec::new(),
            moved: 0,
            writes: 4_000,
            planned: 4_000,
            errors_before: 0,
            errors: 40,
            error_seconds: 4,
        }
    }

    fn change(after_s: f64) -> TableChange {
        TableChange::between(after_s, &Table::default(), &Table::default())
    }

    #[test]
    fn a_table_is_compared_with_the_one_before() {
        let mut before = Table::default();
        let membership = |online| Membership { incarnation: 1, process: 1, online };
        before.nodes = [("a", true), ("b", false)].map(|(node, online)| (node.into(), membership(online))).into();
        let mut after = before.clone();
        after.nodes = [("a", false), ("b", true)].map(|(node, online)| (node.into(), membership(online))).into();
        after.partitions[3].primary = Some("b".into());
        after.partitions[4].successor = Some("b".into());
        let (offline, admitted) = (vec!["a".into()], vec!["b".into()]);
        assert_eq!(
            TableChange::between(1.5, &before, &after),
            TableChange { after_s: 1.5, moved: 1, planned: 1, offline, admitted }
        );
    }

    #[test]
    fn users_are_served_again_after_the_last_window_with_errors() {
        assert_eq!(served_after_s(&writes(25, &[]), 25.0), Some(0.0));
        assert_eq!(served_after_s(&writes(25, &[(0, 3_000)]), 25.0), Some(3.0));
        assert_eq!(
            served_after_s(&writes(25, &[(0, 3_000), (9_000, 9_100)]), 25.0),
            Some(9.5),
            "it is not over at 3 s"
        );
        assert_eq!(served_after_s(&writes(25, &[(0, 25_000)]), 25.0), None);
        assert_eq!(served_after_s(&writes(25, &[(24_000, 25_000)]), 25.0), None, "not before the end");
        assert_eq!(served_after_s(&[], 25.0), None, "no client can write");
        assert_eq!(error_seconds(&writes(25, &[(500, 2_100)])), 3);
    }

    #[test]
    fn a_fault_for_which_nothing_should_move_is_handled_if_nothing_moves() {
        let stays = measured(GrayFault::EtcdSlow, Defence::All, Some(0.0));
        let tables = vec![change(2.0)];
        assert!(stays.is_handled() && !Measured { moved: 1, tables: tables.clone(), ..stays }.is_handled());
        let serves = Measured { moved: 5, tables, ..measured(GrayFault::LossIn, Defence::All, Some(7.0)) };
        assert!(serves.is_handled());
        assert!(!Measured { served_after_s: Some(7.5), ..serves.clone() }.is_handled());
        assert!(!Measured { served_after_s: None, ..serves.clone() }.is_handled());
        assert!(!Measured { false_removals: 1, ..serves }.is_handled());
        let sign = Sign { after_s: 1.0, evidence: Evidence::Heartbeats };
        let signs = BTreeMap::from([(NodeId::from("a"), sign), (NodeId::from("b"), sign)]);
        assert_eq!(false_removals(&signs, "a", Expected::Serves), 1);
        assert_eq!(false_removals(&signs, "a", Expected::Stays), 2, "its heartbeats are only late");
    }

    #[test]
    fn a_kind_counts_if_both_strengths_are_handled_and_one_kind_of_twelve_may_be_missed() {
        let passed = |all: &[Measured], quick| verdicts(all, quick).iter().map(|each| each.passed).collect::<Vec<_>>();
        let mut all: Vec<Measured> =
            GrayFault::ALL.map(|fault| measured(fault, Defence::All, Some(3.0))).into_iter().collect();
        assert_eq!(handled_kinds(&all, Defence::All), (12, 12));
        all[9].served_after_s = None;
        assert_eq!((all[9].fault, handled_kinds(&all, Defence::All)), (GrayFault::Fail40, (11, 12)));
        assert_eq!(passed(&all, false), [Some(true); 3]);
        all[0].served_after_s = Some(8.0);
        all[1].tables = [1.0, 2.0, 3.0].map(change).to_vec();
        all[2].false_removals = 1;
        assert_eq!(passed(&all, false), [Some(false); 3]);
        assert_eq!(passed(&all, true), [None; 3]);
        all[3].writes = 3_700;
        assert!(verdicts(&all, false).iter().all(|each| each.passed.is_none() && each.undecided), "a busy machine");
        // Heartbeats alone are not judged.
        let all = [measured(GrayFault::WritesStall, Defence::Heartbeats, None)];
        assert_eq!((handled_kinds(&all, Defence::Heartbeats), passed(&all, false)), ((0, 1), vec![None; 3]));
        let one = [measured(GrayFault::WritesStall, Defence::All, None)];
        assert_eq!(passed(&one, false)[0], Some(false), "the only one must be handled");
    }
}
