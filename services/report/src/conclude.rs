//! The last step of making a report: what follows from its steps.

use loadtest::figures::Tolerances;

use super::{adding_up, analysis, schema::Report, words};

impl Report {
    /// Fills `knees` and `verdicts` from the steps and adds the remarks that follow from them. Doing it again changes nothing.
    /// Without tolerances there is no verdict but that on the counts.
    pub fn conclude(&mut self, tolerances: Option<&Tolerances>) {
        self.knees = self
            .profiles
            .iter()
            .filter(|profile| !self.begins_above(profile))
            .map(|profile| analysis::knee(self, profile))
            .collect();
        self.verdicts = tolerances.map(|t| analysis::judge(self, t)).unwrap_or_default();
        self.verdicts.extend(adding_up::verdict(self));
        for remark in words::remarks(self, tolerances) {
            if !self.remarks.contains(&remark) {
                self.remarks.push(remark);
            }
        }
    }

    /// Whether a variant was run, and not with the lowest step: it cannot show where it breaks.
    fn begins_above(&self, profile: &str) -> bool {
        let own = self.steps.iter().filter(|s| s.profile == profile).map(|s| s.users).min();
        own.is_some() && own != self.steps.iter().map(|s| s.users).min()
    }
}
