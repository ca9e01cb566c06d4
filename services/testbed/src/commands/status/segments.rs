//! The copies of the model's segments, for a terminal.

use monitor::status::SegmentStatus;

/// A line for all segments, and one for each that lacks copies. Empty: no segments are known.
pub fn table(segments: &[SegmentStatus]) -> String {
    let (Some(least), Some(oldest)) = (
        segments.iter().map(|segment| segment.version).min(),
        segments.iter().map(|segment| segment.age_ms).reduce(f64::max),
    ) else {
        return String::new();
    };
    let complete = segments.iter().filter(|segment| segment.good == segment.holders).count();
    let events = report::numbers::count(least as f64);
    let mut text = format!(
        "segments\n  {:<14} {complete} of {} have all copies; {events} events in the model, published {:.0} s ago\n",
        "copies",
        segments.len(),
        oldest / 1e3
    );
    for SegmentStatus { segment, good, holders, epoch, .. } in segments.iter().filter(|one| one.good < one.holders) {
        text +=
            &format!("  {:<14} {good} of {holders} copies are good, epoch {epoch}\n", format!("segment {segment:02}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_without_all_copies_have_a_line() {
        let status =
            |segment, good| SegmentStatus { segment, version: 1_200, epoch: 4, good, holders: 3, age_ms: 2_000.0 };
        assert_eq!(table(&[]), "");
        let text = table(&[status(0, 3), status(1, 2), status(2, 3)]);
        assert_eq!(
            text,
            "segments\n  copies         2 of 3 have all copies; 1,200 events in the model, published 2 s ago\n  segment 01     2 of 3 copies are good, epoch 4\n"
        );
    }
}
