//! A step's histogram log, read again: what its figures can be computed from.

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    },
};

use crate::plan::{Latency, curve};

/// Longer than any text of three histograms with their whole range in use.
const MAX_PAYLOAD: usize = 8 << 20;

/// The histograms of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramLog {
    /// Length of the measured part, in seconds.
    pub measured_s: f64,
    /// All completed requests.
    pub all: Measured,
    /// The good responses.
    pub good: Measured,
    /// Skip-corrected; `None` with open arrivals, and in logs from before it was recorded.
    pub corrected: Option<Measured>,
}

/// What one histogram says.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    pub requests: u64,
    pub latency: Latency,
    /// `[percentile 0..=100, ms]`, ascending.
    pub curve: Vec<(f64, f64)>,
}

impl HistogramLog {
    /// Reads the text that [`crate::plan::write_hdr_log`] wrote.
    ///
    /// # Errors
    /// The text is no histogram log, or a histogram is damaged or missing.
    pub fn parse(text: &str) -> Result<Self> {
        let (mut all, mut good, mut corrected, mut measured_s) = (None, None, None, 0.0);
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            let entry = entry.map_err(|error| anyhow::anyhow!("a line is damaged: {error:?}"))?;
            let LogEntry::Interval(interval) = entry else { continue };
            let name = interval.tag().map_or("", |tag| tag.as_str());
            let measured = Some(measured(interval.encoded_histogram()).with_context(|| format!("histogram {name}"))?);
            match name {
                "all" => (all, measured_s) = (measured, interval.duration().as_secs_f64()),
                "good" => good = measured,
                "corrected" => corrected = measured,
                _ => {}
            }
        }
        ensure!(measured_s > 0.0, "it has no measured part: it ends too early, or is no histogram log of a step");
        let all = all.context("the histogram of all requests is missing")?;
        let good = good.context("the histogram of the good responses is missing: the log ends too early")?;
        Ok(Self { measured_s, all, good, corrected })
    }
}

fn measured(encoded: &str) -> Result<Measured> {
    ensure!(encoded.len() <= MAX_PAYLOAD, "it is longer than {MAX_PAYLOAD} characters");
    let bytes = BASE64_STANDARD.decode(encoded).context("it is not base64")?;
    let histogram: Histogram<u64> = Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| anyhow::anyhow!("it is damaged: {error:?}"))?;
    Ok(Measured { requests: histogram.len(), latency: Latency::of(&histogram), curve: curve(&histogram) })
}
