//! The failure detector of this monitor.

use std::collections::BTreeMap;

use heartbeat::{
    detector::{AnyDetector, BadParam},
    observer::DetectorFactory,
};

/// Defaults of `fixed` here: suspect after 1.3 intervals, without a scan. The detector's defaults are the article's, 3 intervals and a scan
/// every 2. Probes make that caution unnecessary here.
const FIXED: [(&str, f64); 2] = [("suspect", 1.3), ("scan", 0.0)];

/// # Errors
/// Unknown detector or parameter, or a value out of range.
pub fn make(name: &str, interval_ms: u64, params: &BTreeMap<String, f64>) -> Result<AnyDetector, BadParam> {
    let mut params = params.clone();
    if name == "fixed" {
        for (name, value) in FIXED {
            params.entry(name.to_owned()).or_insert(value);
        }
    }
    let params: Vec<(String, f64)> = params.into_iter().collect();
    AnyDetector::named(name, interval_ms.saturating_mul(1_000_000), &params)
}

/// Makes a new detector for each worker and each of its incarnations.
pub fn factory(template: AnyDetector) -> DetectorFactory {
    Box::new(move || Box::new(template.clone()))
}
