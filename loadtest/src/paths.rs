//! Makes path and query of each request from a template and an id.

use anyhow::{Context, Result};
use rand::rngs::SmallRng;

use crate::{ids::Ids, plan::StepPlan};

/// Path of our own gateway, before the id.
const RECOMMENDATIONS: &str = "/recommendations?user_id=";

/// Shared by all users of a step.
pub(crate) struct Paths {
    before_id: String,
    /// The ids, and what comes after one; `None`: all requests have the same path.
    ids: Option<(Ids, String)>,
    is_foreign: bool,
}

impl Paths {
    /// Reads the file of ids, if the requests have any.
    ///
    /// # Errors
    /// The file cannot be read, or has a line that is no id.
    pub(crate) async fn of(plan: &StepPlan) -> Result<Self> {
        let (before_id, after_id) = plan.target.as_ref().map_or((RECOMMENDATIONS, Some("")), |target| target.parts());
        let ids = match after_id {
            None => None,
            Some(after_id) => {
                let path = &plan.known_ids;
                let list = tokio::fs::read_to_string(path).await;
                let list = list.with_context(|| format!("known ids in {}", path.display()))?;
                Some((Ids::new(plan, &list)?, after_id.to_owned()))
            }
        };
        Ok(Self { before_id: before_id.to_owned(), ids, is_foreign: plan.target.is_some() })
    }

    /// Replaces `path` by that of the next request. Returns whether its id belongs to an existing user of our own service.
    pub(crate) fn next(&self, random: &mut SmallRng, path: &mut String) -> bool {
        path.clear();
        path.push_str(&self.before_id);
        let Some((ids, after_id)) = &self.ids else { return false };
        let known = ids.append(random, path);
        path.push_str(after_id);
        known && !self.is_foreign
    }

    /// Number of requests with an id that an earlier request had used.
    pub(crate) fn repeated_ids(&self) -> u64 {
        self.ids.as_ref().map_or(0, |(ids, _)| ids.repeated())
    }
}
