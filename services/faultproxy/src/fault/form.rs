//! Faults as JSON.

use serde::{Deserialize, Serialize};

use super::{DEFAULT_SEED, Fault, FaultKind, FaultSpec, InvalidFault, Scope, WriteError};
use crate::direction::Direction;

const MAX_LATENCY_MS: f64 = 60_000.0;
const MAX_FOR_MS: u64 = 86_400_000;
/// Also bounds the time for a match.
const MAX_PATTERN_BYTES: usize = 200;
const MAX_WILDCARDS: usize = 4;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FaultForm {
    kind: FaultKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jitter_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pct: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drop_syn: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<WriteError>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    direction: Option<Direction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    for_ms: Option<u64>,
}

impl FaultForm {
    /// The first field that does not belong to this kind of fault, and the kinds that it belongs to.
    fn stray(&self) -> Option<(&'static str, String)> {
        const LATENCY: &[FaultKind] = &[FaultKind::Latency];
        const RANDOM: &[FaultKind] = &[FaultKind::Loss, FaultKind::FailWrites];
        let directed: Vec<FaultKind> = FaultKind::ALL.into_iter().filter(|kind| kind.has_direction()).collect();
        let belongs: [(_, _, &[FaultKind]); 7] = [
            ("ms", self.ms.is_some(), LATENCY),
            ("jitter_ms", self.jitter_ms.is_some(), LATENCY),
            ("pct", self.pct.is_some(), RANDOM),
            ("seed", self.seed.is_some(), RANDOM),
            ("drop_syn", self.drop_syn.is_some(), &[FaultKind::Blackhole]),
            ("error", self.error.is_some(), &[FaultKind::FailWrites]),
            ("direction", self.direction.is_some(), &directed),
        ];
        let (field, _, kinds) = belongs.into_iter().find(|(_, given, kinds)| *given && !kinds.contains(&self.kind))?;
        Some((field, kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ")))
    }

    fn pct(&self) -> Result<f64, InvalidFault> {
        let Some(pct) = self.pct else { return invalid("pct", "missing".into()) };
        if !(0.0..=100.0).contains(&pct) {
            return invalid("pct", format!("is {pct}, must be between 0 and 100"));
        }
        Ok(pct)
    }
}

fn invalid<T>(field: &'static str, reason: String) -> Result<T, InvalidFault> {
    Err(InvalidFault { field, reason })
}

impl TryFrom<FaultForm> for FaultSpec {
    type Error = InvalidFault;
    fn try_from(form: FaultForm) -> Result<Self, InvalidFault> {
        if let Some(for_ms) = form.for_ms.filter(|for_ms| !(1..=MAX_FOR_MS).contains(for_ms)) {
            return invalid("for_ms", format!("is {for_ms}, must be between 1 and {MAX_FOR_MS}"));
        }
        if let Some((field, kinds)) = form.stray() {
            return invalid(field, format!("belongs to {kinds} only"));
        }
        if let Some(link) = &form.link
            && (link.len() > MAX_PATTERN_BYTES || link.matches('*').count() > MAX_WILDCARDS)
        {
            return invalid(
                "link",
                format!("is longer than {MAX_PATTERN_BYTES} bytes, or has more than {MAX_WILDCARDS} *"),
            );
        }
        let seed = form.seed.unwrap_or(DEFAULT_SEED);
        let fault = match form.kind {
            FaultKind::Latency => {
                let Some(ms) = form.ms else { return invalid("ms", "missing".into()) };
                let jitter_ms = form.jitter_ms.unwrap_or(0.0);
                if !(0.0..=MAX_LATENCY_MS).contains(&ms) {
                    return invalid("ms", format!("is {ms}, must be between 0 and {MAX_LATENCY_MS}"));
                }
                if !(0.0..=ms).contains(&jitter_ms) {
                    return invalid("jitter_ms", format!("is {jitter_ms}, must be between 0 and ms ({ms})"));
                }
                Fault::Latency { ms, jitter_ms }
            }
            FaultKind::Loss => Fault::Loss { pct: form.pct()?, seed },
            FaultKind::Stall => Fault::Stall,
            FaultKind::Reset => Fault::Reset,
            FaultKind::Refuse => Fault::Refuse,
            FaultKind::Blackhole => {
                let drop_syn = form.drop_syn.unwrap_or(false);
                if drop_syn && form.direction.is_some() {
                    return invalid("drop_syn", "needs both directions: leave direction out".into());
                }
                Fault::Blackhole { drop_syn }
            }
            FaultKind::FailWrites => {
                Fault::FailWrites { pct: form.pct()?, seed, error: form.error.unwrap_or_default() }
            }
            FaultKind::StallWrites => Fault::StallWrites,
        };
        let scope = Scope { link: form.link, direction: form.direction };
        Ok(Self { fault, scope, for_ms: form.for_ms })
    }
}

impl From<FaultSpec> for FaultForm {
    fn from(FaultSpec { fault, scope: Scope { link, direction }, for_ms }: FaultSpec) -> Self {
        let kind = fault.kind();
        let (ms, jitter_ms, pct, seed, drop_syn, error) = (None, None, None, None, None, None);
        let none = Self { kind, ms, jitter_ms, pct, seed, drop_syn, error, link, direction, for_ms };
        match fault {
            Fault::Latency { ms, jitter_ms } => Self { ms: Some(ms), jitter_ms: Some(jitter_ms), ..none },
            Fault::Loss { pct, seed } => Self { pct: Some(pct), seed: Some(seed), ..none },
            Fault::Blackhole { drop_syn } => Self { drop_syn: Some(drop_syn), ..none },
            Fault::FailWrites { pct, seed, error } => {
                Self { pct: Some(pct), seed: Some(seed), error: Some(error), ..none }
            }
            Fault::Stall | Fault::Reset | Fault::Refuse | Fault::StallWrites => none,
        }
    }
}
