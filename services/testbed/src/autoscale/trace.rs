//! Traces of an autoscaler: a decision that changes the count is the root, and each replica that starts or leaves because of it is a child.
//! Such a decision is always recorded; of the others a sample, as of requests.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use autoscaler::{
    Manifest,
    line::{MetricKind, StepAnswer},
};
use contract::spans::{attribute, name};
use launcher::ChildId;
use runtime::telemetry::{AttributeValue, Context, Kind, Span, Telemetry};

use super::Step;
use crate::stack::service::{LEAVE_DEADLINE, Replica};

/// Bounded by the number of replicas.
pub struct Traces {
    telemetry: Telemetry,
    metric_type: &'static str,
    /// The last decision that changed the count, until as many replicas run as it wants.
    last: Span,
    starting: HashMap<ChildId, Part>,
    leaving: HashMap<ChildId, Part>,
}

/// A replica that starts or leaves. The decision's span ends with its last part.
struct Part {
    decision: Span,
    span: Span,
    began: Instant,
}

impl Traces {
    pub fn new(telemetry: Telemetry, manifest: &Manifest) -> Self {
        let metric_type = match manifest.metrics().first().map(|metric| metric.kind) {
            Some(MetricKind::ContainerResource) => "ContainerResource",
            Some(MetricKind::External) => "External",
            Some(MetricKind::Resource) | None => "Resource",
        };
        Self { telemetry, metric_type, last: Span::NONE, starting: HashMap::new(), leaving: HashMap::new() }
    }

    /// To be called after each tick, with its decision and the tick's beginning. `before`: the replicas before it, so that those that `restart_dead` has started are no part of a
    /// decision. `desired`: the count of the last decision.
    pub fn follow(
        &mut self,
        step: Option<(&Step, Instant)>,
        (desired, before): (usize, &HashSet<ChildId>),
        replicas: &[Replica],
        leavers: impl Iterator<Item = (usize, ChildId)>,
    ) {
        if let Some((step, began)) = step {
            self.decided(step, began);
        }
        for replica in replicas.iter().filter(|replica| !before.contains(&replica.child)) {
            let part = self.part(name::START_REPLICA, replica.n, replica.started);
            self.starting.insert(replica.child, part);
        }
        let leavers: HashMap<ChildId, usize> = leavers.map(|(n, child)| (child, n)).collect();
        let now = Instant::now();
        for (child, n) in &leavers {
            if !self.leaving.contains_key(child) {
                let part = self.part(name::DRAIN_REPLICA, *n, now);
                self.leaving.insert(*child, part);
            }
        }
        let here: HashMap<ChildId, Option<Instant>> =
            replicas.iter().map(|replica| (replica.child, replica.ready)).collect();
        for (child, part) in self.starting.extract_if(|child, _| here.get(child).is_none_or(Option::is_some)) {
            match here.get(&child).copied().flatten() {
                Some(ready) => part.end("ready", ready),
                None if leavers.contains_key(&child) => part.end("left", now),
                None => {
                    part.span.fail("replica_ended");
                    part.end("ended", now);
                }
            }
        }
        for (_, part) in self.leaving.extract_if(|child, _| !leavers.contains_key(child)) {
            let killed = now - part.began >= LEAVE_DEADLINE;
            if killed {
                part.span.fail("killed");
            }
            part.end(if killed { "killed" } else { "ended" }, now);
        }
        if replicas.len() == desired {
            self.last = Span::NONE;
        }
    }

    fn decided(&mut self, step: &Step, began: Instant) {
        let changes = step.answer.replicas != step.answer.replicas_before;
        // A new trace; its sampling decision is for decisions that change nothing.
        let Some(context) = self.telemetry.start_trace().filter(|context| changes || context.sampled) else { return };
        let context = Context { sampled: true, ..context };
        let span = self.telemetry.record((context, 0), Kind::Internal, name::AUTOSCALE, began);
        self.describe(&span, &step.answer);
        if changes {
            span.set(attribute::EXEMPLAR, true);
            self.last = span;
        }
    }

    fn describe(&self, span: &Span, answer: &StepAnswer) {
        let StepAnswer { replicas_before, proposed, replicas, metrics, conditions, error, explain, .. } = answer;
        span.set_all([
            (attribute::REPLICAS_BEFORE, int(*replicas_before)),
            (attribute::REPLICAS_PROPOSED, int(*proposed)),
            (attribute::REPLICAS_AFTER, int(*replicas)),
            (attribute::K8S_HPA_METRIC_TYPE, self.metric_type.into()),
        ]);
        if let Some(percent) = metrics.iter().find_map(|values| values.utilization_percent) {
            span.set(attribute::UTILIZATION, int(percent));
        }
        span.set_with(attribute::CONDITIONS, || {
            conditions.iter().map(|(kind, shown)| format!("{kind}={shown}")).collect::<Vec<_>>().join(" ")
        });
        if let Some(code) = error {
            span.set(attribute::ERROR_TYPE, *code);
        }
        explain.iter().for_each(|sentence| span.event(sentence));
    }

    fn part(&self, name: &'static str, n: usize, began: Instant) -> Part {
        let span = self.last.child_since(Kind::Internal, name, began);
        span.set_with(attribute::REPLICA, || format!("api-{n}"));
        Part { decision: self.last.clone(), span, began }
    }
}

impl Part {
    fn end(self, outcome: &'static str, at: Instant) {
        self.span.set(attribute::OUTCOME, outcome);
        self.span.end_at(at);
        self.decision.end_at(at);
    }
}

fn int(number: i32) -> AttributeValue<'static> {
    AttributeValue::Int(number.into())
}
