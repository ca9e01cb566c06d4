//! Divides all times of rules by one number: an alert that takes days in production fires within minutes.

use std::time::Duration;

use anyhow::Context as _;

/// Divides every range (`[5m]`) and every `for:`. A range is at least `shortest`, so that it contains several samples.
///
/// # Errors
/// A `for:` is not a duration.
pub(super) fn divide(rules: &str, by: u32, shortest: Duration) -> anyhow::Result<String> {
    let mut out = String::with_capacity(rules.len());
    for line in rules.lines() {
        if let Some((indent, time)) = line.split_once("for: ").filter(|(indent, _)| indent.trim().is_empty()) {
            let time = parse(time.trim()).with_context(|| format!("'{line}' has no duration such as 5m"))?;
            out.push_str(&format!("{indent}for: {}ms\n", (time / by).as_millis()));
            continue;
        }
        let mut parts = line.split('[');
        out.push_str(parts.next().unwrap_or_default());
        for part in parts {
            match part.split_once(']').and_then(|(range, rest)| Some((parse(range)?, rest))) {
                Some((range, rest)) => {
                    out.push_str(&format!("[{}ms]{rest}", (range / by).max(shortest).as_millis()));
                }
                None => out.push_str(&format!("[{part}")),
            }
        }
        out.push('\n');
    }
    Ok(out)
}

/// Parses a duration with one unit.
fn parse(text: &str) -> Option<Duration> {
    [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)].into_iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_secs(number * seconds))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_waits_are_divided_and_names_are_not() {
        let rules = "- record: slo:x:ratio_rate5m\n  expr: rate(a{b=\"c\"}[5m]) / rate(d[3d]) > 0.1\n  for: 2m\n  labels: { a: [b] }\n";
        let shorter = divide(rules, 240, Duration::from_secs(2)).unwrap();
        assert_eq!(
            shorter,
            "- record: slo:x:ratio_rate5m\n  expr: rate(a{b=\"c\"}[2000ms]) / rate(d[1080000ms]) > 0.1\n  for: 500ms\n  labels: { a: [b] }\n"
        );
        assert!(divide("for: ever", 2, Duration::ZERO).is_err());
    }

    /// A range that is not parsed would stay as long as production's.
    #[test]
    fn every_time_of_the_real_rules_is_understood() {
        for (name, rules) in super::super::RULES {
            let shorter = divide(rules, 1_000, Duration::ZERO).unwrap();
            let waits = |text: &str, end: &str| {
                text.lines().filter(|line| line.trim().starts_with("for: ") && line.ends_with(end)).count()
            };
            let all = rules.matches('[').count() + waits(rules, "");
            assert_eq!(shorter.matches("ms]").count() + waits(&shorter, "ms"), all, "{name}");
        }
    }
}
