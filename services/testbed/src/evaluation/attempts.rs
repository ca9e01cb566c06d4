//! What is measured again, and what is kept of a measurement that was not valid.

use std::path::Path;

use anyhow::Context;
use report::Step;

/// All steps depend on the calibration, so it is tried again even where steps are not.
pub const CALIBRATION_ATTEMPTS: u32 = 3;

/// The error of a run whose calibration was not valid.
pub fn not_calibrated(attempts: u32, reasons: &str) -> String {
    format!(
        "the calibration was not valid in {attempts} attempts ({reasons}), so the store's delay would be wrong by an unknown amount: stop other \
         work on this machine and run it again, use a machine with more or faster cores (./testbed doctor shows them), or run without a \
         verdict (--quick, or evaluate --law none)"
    )
}

/// Gives the histogram log of a step that is measured again a name of its own: `baseline-5000-1.attempt2.hlog`.
///
/// # Errors
/// The file cannot be renamed.
pub fn keep_log(out: &Path, step: &mut Step) -> anyhow::Result<()> {
    let Some(name) = &step.hdr_log else { return Ok(()) };
    let stem = name.strip_suffix(".hlog").unwrap_or(name);
    let kept = format!("{stem}.attempt{}.hlog", step.discarded.len() + 1);
    let path = out.join(name);
    std::fs::rename(&path, out.join(&kept)).with_context(|| format!("cannot rename {} to {kept}", path.display()))?;
    step.hdr_log = Some(kept);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_keeps_its_log() {
        let out = tempfile::tempdir().unwrap();
        let measure = |text: &str| {
            std::fs::write(out.path().join("baseline-5000-1.hlog"), text).unwrap();
            Step { hdr_log: Some("baseline-5000-1.hlog".into()), ..Step::default() }
        };
        let mut step = measure("first");
        for text in ["second", "third"] {
            keep_log(out.path(), &mut step).unwrap();
            step = measure(text).after(step);
        }
        let logs = step.discarded.iter().chain([&step]).map(|attempt| attempt.hdr_log.clone().unwrap());
        let texts: Vec<String> = logs.map(|log| std::fs::read_to_string(out.path().join(log)).unwrap()).collect();
        assert_eq!(texts, ["first", "second", "third"]);
        assert_eq!(step.discarded[1].hdr_log.as_deref(), Some("baseline-5000-1.attempt2.hlog"));
        std::fs::remove_file(out.path().join("baseline-5000-1.hlog")).unwrap();
        assert!(keep_log(out.path(), &mut step).unwrap_err().to_string().contains("attempt3"));
        keep_log(out.path(), &mut Step::default()).unwrap();
    }

    #[test]
    fn a_failed_calibration_says_what_to_do() {
        let error = not_calibrated(3, "97 % CPU is above 90 %");
        assert!(error.contains("in 3 attempts (97 % CPU") && error.contains("stop other work"), "{error}");
        assert!(error.contains("--law none") && error.contains("--quick"), "{error}");
    }
}
