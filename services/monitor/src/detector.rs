//! Which detector watches the nodes.

use heartbeat::{
    Nanos,
    detector::{Any, BadParam},
    observer::MakeDetector,
};

use crate::config::Detect;

/// Of `fixed`, unless said otherwise: a beat, the time that it may be late, and no scan between that and being found. The
/// detector's own defaults are the article's, 3 beats and a scan every 2: probes make that much caution needless here.
const FIXED: [(&str, f64); 2] = [("suspect", 1.3), ("scan", 0.0)];

/// # Errors
/// No such detector, or no such parameter of it, or a value out of its range.
pub fn make(detect: &Detect) -> Result<Any, BadParam> {
    let mut params = detect.params.clone();
    if detect.detector == "fixed" {
        for (name, value) in FIXED {
            params.entry(name.to_owned()).or_insert(value);
        }
    }
    let params: Vec<(String, f64)> = params.into_iter().collect();
    Any::named(&detect.detector, (detect.interval_ms * 1_000_000) as Nanos, &params)
}

/// A fresh detector for each node and each of its lives.
///
/// # Errors
/// Those of `make`.
pub fn maker(detect: &Detect) -> Result<MakeDetector, BadParam> {
    let fresh = make(detect)?;
    Ok(Box::new(move || Box::new(fresh.clone())))
}
