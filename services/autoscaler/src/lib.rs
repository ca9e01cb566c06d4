//! Decides replica counts as Kubernetes' HorizontalPodAutoscaler does (v1.37.2, `pkg/controller/podautoscaler`): the same numbers, reasons
//! and conditions for the same pods, metrics, limits, policies and history. No I/O and no clock: callers pass `now_ms`, milliseconds on any
//! clock that does not go back.
//!
//! [`reconcile`] is one step of the controller. It reads a [`Spec`] and an [`Observation`], keeps its memory in a [`History`], and returns a
//! [`Decision`] with every [`Rule`] that changed the number. Begin reading there.
//!
//! ```text
//! pods → groups (ready, unready, missing, ignored) → resource ┐
//! series of an external metric → external ────────────────────┴→ metric → reconcile → stabilize → rate
//!                                                                             └→ normalize (windows, rates, limits)
//! line: the same by NDJSON (`testbed plan`)      manifest: a HorizontalPodAutoscaler in YAML
//! ```

mod arithmetic;
mod condition;
mod external;
mod history;
pub mod line;
mod manifest;
mod metric;
mod metric_error;
mod normalize;
mod pods;
mod quantity;
mod rate;
mod reconcile;
mod resource;
mod rule;
mod spec;
mod stabilize;

pub use condition::{Condition, ConditionType, Conditions};
pub use external::{ExternalValue, external_replicas};
pub use history::{History, Recommendation, ScaleEvent};
pub use manifest::{BadManifest, Manifest};
pub use metric::{MetricValues, Proposal};
pub use metric_error::MetricError;
pub use normalize::{Normalized, Request, normalize};
pub use pods::{Container, Groups, Orphan, Phase, Pod, Pods, Ready, Sample, Status, Usage};
pub use quantity::{BadQuantity, Quantity};
pub use rate::{Rated, limit_rate};
pub use reconcile::{Decision, Observation, reconcile};
pub use resource::{NoProposal, ResourceQuestion, resource_replicas};
pub use rule::{Direction, RateLimit, Rule};
pub use spec::{
    Behavior, ExternalTarget, Flags, Metric, Policy, PolicyKind, Resource, ResourceTarget, Rules, Select, Spec,
    Tolerances,
};
pub use stabilize::{Stabilized, stabilize, stabilize_scale_down};
