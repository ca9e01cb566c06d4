//! An autoscaler with what shows it: metrics on an admin port, and traces of its decisions.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use launcher::ChildId;
use prometheus::Registry;
use runtime::{
    AdminPort, Endpoint, Readiness,
    telemetry::{Service, Telemetry},
};
use tokio_util::sync::CancellationToken;

use super::{
    Autoscaler, Options, Step,
    metrics::{Counts, Metrics},
    trace::Traces,
};
use crate::stack::service::{ServiceStack, job};

/// The admin port among the endpoints of a stack; not there without an autoscaler.
pub const AUTOSCALER: &str = "autoscaler";

pub struct Controller {
    autoscaler: Autoscaler,
    metrics: Metrics,
    traces: Traces,
    /// Replicas that were not ready at the tick before.
    starting: HashSet<ChildId>,
    /// Serves until it is dropped.
    _admin: AdminPort,
}

impl Controller {
    /// Begins with the replicas that run, opens the admin port and has Prometheus read it.
    ///
    /// # Errors
    /// The manifest does not decide such a case, or there is no free port.
    pub async fn start(options: Options, service: &mut ServiceStack) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry, &options.rule.manifest, options.rule.request)?;
        let process = Service { name: AUTOSCALER, listen: AUTOSCALER.into() };
        let telemetry = Telemetry::start(service.telemetry(), process, &registry)?;
        let readiness = Readiness::starting("", &CancellationToken::new());
        readiness.ready();
        let listener = Endpoint::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).bind().await;
        let listener = listener.context("the autoscaler has no admin port")?;
        let address = listener.endpoint()?.to_string();
        let admin = AdminPort::open(listener, &readiness, &registry)?;
        service.stack.set_endpoint(AUTOSCALER, &format!("http://{address}"))?;
        if let Some(prometheus) = &service.prometheus {
            prometheus.add(&job(AUTOSCALER, [(AUTOSCALER.into(), address)]))?;
        }
        let traces = Traces::new(telemetry, &options.rule.manifest);
        let autoscaler = Autoscaler::new(options, service)?;
        let mut controller = Self { autoscaler, metrics, traces, starting: HashSet::new(), _admin: admin };
        controller.show(service);
        Ok(controller)
    }

    /// Pause between two ticks that sees each period several times.
    pub fn pause(&self) -> Duration {
        self.autoscaler.pause()
    }

    /// As [`Autoscaler::tick`].
    ///
    /// # Errors
    /// A replica cannot be started or does not end.
    pub async fn tick(&mut self, service: &mut ServiceStack) -> anyhow::Result<Option<Step>> {
        let began = Instant::now();
        let before = service.replicas.iter().map(|replica| replica.child).collect();
        let step = self.autoscaler.tick(service).await?;
        if let Some(step) = &step {
            self.metrics.decided(&step.answer);
        }
        let desired = self.autoscaler.desired();
        self.traces.follow(
            step.as_ref().map(|step| (step, began)),
            (desired, &before),
            &service.replicas,
            service.leavers(),
        );
        self.show(service);
        Ok(step)
    }

    fn show(&mut self, service: &ServiceStack) {
        let (mut ready, mut starting) = (0, HashSet::new());
        // One that has died is neither, until it is started again.
        for replica in service.replicas.iter().filter(|replica| service.stack.pid(replica.child).is_some()) {
            match replica.ready {
                Some(at) => {
                    ready += 1;
                    if self.starting.contains(&replica.child) {
                        self.metrics.became_ready(at - replica.started);
                    }
                }
                None => _ = starting.insert(replica.child),
            }
        }
        let desired = self.autoscaler.desired();
        self.metrics.count(Counts { desired, ready, starting: starting.len(), leaving: service.leaving() });
        self.starting = starting;
    }
}
