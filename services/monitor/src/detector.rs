//! Which detector watches the nodes.

use std::collections::BTreeMap;

use heartbeat::{
    Nanos,
    detector::{AnyDetector, BadParam},
    observer::DetectorFactory,
};

/// Of `fixed`, unless said otherwise: a beat, the time that it may be late, and no scan between that and being found. The
/// detector's own defaults are the article's, 3 beats and a scan every 2: probes make that much caution needless here.
const FIXED: [(&str, f64); 2] = [("suspect", 1.3), ("scan", 0.0)];

/// # Errors
/// No such detector, or no such parameter of it, or a value out of its range.
pub fn make(name: &str, interval_ms: u64, params: &BTreeMap<String, f64>) -> Result<AnyDetector, BadParam> {
    let mut params = params.clone();
    if name == "fixed" {
        for (name, value) in FIXED {
            params.entry(name.to_owned()).or_insert(value);
        }
    }
    let params: Vec<(String, f64)> = params.into_iter().collect();
    AnyDetector::named(name, (interval_ms * 1_000_000) as Nanos, &params)
}

/// Makes a new detector for each worker and each of its incarnations.
pub fn factory(template: AnyDetector) -> DetectorFactory {
    Box::new(move || Box::new(template.clone()))
}
