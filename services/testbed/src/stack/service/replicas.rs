//! The replicas of a stack: they start and stop, and with slots they come and go while the others answer.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use api::{ApiConfig, Profile};
use launcher::{ChildId, QuotaMode, Signal, Spec, Stack, free_port, kafka};
use loadtest::scenario;
use runtime::{Endpoint, telemetry::TelemetryConfig};
use stores::{QueueOrder, StoreConfig};

use super::{ServiceStack, observers::job, own_program};

/// Replicas may have to warm up a million users.
const READY_DEADLINE: Duration = Duration::from_secs(600);
/// `http.leave_ms` with slots: longer than the gateway keeps an idle connection (`nginx::Slots::idle`).
const LEAVE: Duration = Duration::from_secs(5);
/// A leaving replica is killed after this time: its leave, two drains of 5 s, its last spans.
pub const LEAVE_DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

pub struct Replica {
    /// The number of its socket and its admin port, from 0.
    pub n: usize,
    pub child: ChildId,
    pub admin: String,
    pub started: Instant,
    /// When it was first seen ready.
    pub ready: Option<Instant>,
}

/// A replica that was asked to leave.
pub(super) struct Leaving {
    n: usize,
    child: ChildId,
    deadline: Instant,
}

impl ServiceStack {
    /// Starts all replicas with this profile and waits until each is ready; returns the duration.
    pub async fn start_replicas(&mut self, profile: Profile, sets: &[String]) -> anyhow::Result<Duration> {
        ensure!(self.replicas.is_empty(), "the replicas run already");
        let started = Instant::now();
        for n in 0..self.plan.replicas as usize {
            self.add_replica(n, profile, sets)?;
        }
        self.wait_replicas().await?;
        Ok(started.elapsed())
    }

    /// Starts replica `n`. Does not wait (`wait_replicas`): the gateway finds the replica once it is ready.
    ///
    /// # Errors
    /// The number is too high, it runs or still leaves, or it cannot be started.
    pub fn add_replica(&mut self, n: usize, profile: Profile, sets: &[String]) -> anyhow::Result<()> {
        let most = self.admins.len();
        ensure!(n < most, "the stack has at most {most} replicas: there is no replica {n}");
        ensure!(self.replicas.iter().all(|replica| replica.n != n), "replica {n} runs already");
        ensure!(self.leaving.iter().all(|leaving| leaving.n != n), "replica {n} still leaves");
        let replica = self.spawn_replica(n, replica_socket(&self.stack, n), profile, sets)?;
        let after = self.replicas.partition_point(|other| other.n < n);
        self.replicas.insert(after, replica);
        Ok(())
    }

    /// Waits until all replicas are ready. With slots Prometheus then reads their metrics.
    ///
    /// # Errors
    /// One has ended, or is not ready within 10 minutes.
    pub async fn wait_replicas(&mut self) -> anyhow::Result<()> {
        let waits = self.replicas.iter().map(async |replica| {
            self.wait_ready(replica).await?;
            anyhow::Ok((replica.n, Instant::now()))
        });
        let ready = futures::future::try_join_all(waits).await?;
        self.are_ready(&ready)?;
        self.scrape_replicas()
    }

    /// Sees which of the starting replicas are ready by now. Prometheus then reads their metrics. Bounded by a second.
    ///
    /// # Errors
    /// A file cannot be written.
    pub async fn see_ready(&mut self) -> anyhow::Result<()> {
        let starting = self.replicas.iter().filter(|replica| replica.ready.is_none());
        let asked = starting.map(|replica| async {
            let answer = tokio::time::timeout(Duration::from_secs(1), self.is_ready(replica)).await;
            (answer == Ok(true)).then(|| (replica.n, Instant::now()))
        });
        let ready: Vec<(usize, Instant)> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        if ready.is_empty() {
            return Ok(());
        }
        self.are_ready(&ready)?;
        self.scrape_replicas()
    }

    /// Numbers of replicas, and when each was seen ready.
    fn are_ready(&mut self, seen: &[(usize, Instant)]) -> anyhow::Result<()> {
        for (n, at) in seen {
            let Some(replica) = self.replicas.iter_mut().find(|replica| replica.n == *n) else { continue };
            replica.ready.get_or_insert(*at);
            self.stack.set_endpoint(&admin_name(*n), &replica.admin)?;
        }
        Ok(())
    }

    /// Starts replicas, or lets some leave, until `count` run. New ones take the lowest free numbers. Those that are not ready leave first, then
    /// the highest numbers. Does not wait. A number of a replica that still leaves is not free: a later call starts the rest.
    ///
    /// # Errors
    /// A replica cannot be started.
    pub fn scale_to(&mut self, count: usize, profile: Profile, sets: &[String]) -> anyhow::Result<()> {
        let free: Vec<usize> = (0..self.admins.len())
            .filter(|n| self.replicas.iter().all(|replica| replica.n != *n))
            .filter(|n| self.leaving.iter().all(|leaving| leaving.n != *n))
            .collect();
        for n in free.into_iter().take(count.saturating_sub(self.replicas.len())) {
            self.add_replica(n, profile, sets)?;
        }
        let mut leavers: Vec<(bool, usize)> =
            self.replicas.iter().map(|replica| (self.is_serving(replica), replica.n)).collect();
        leavers.sort_by_key(|(is_ready, n)| (*is_ready, std::cmp::Reverse(*n)));
        for (_, n) in leavers.into_iter().take(self.replicas.len().saturating_sub(count)) {
            self.leave(n)?;
        }
        Ok(())
    }

    /// Whether it runs and has been ready.
    pub fn is_serving(&self, replica: &Replica) -> bool {
        replica.ready.is_some() && self.stack.pid(replica.child).is_some()
    }

    /// How many replicas have been asked to leave and have not ended.
    pub fn leaving(&self) -> usize {
        self.leaving.len()
    }

    /// Numbers and processes of the replicas that have been asked to leave and have not ended.
    pub fn leavers(&self) -> impl Iterator<Item = (usize, ChildId)> {
        self.leaving.iter().map(|leaving| (leaving.n, leaving.child))
    }

    /// Asks replica `n` to leave and returns at once: it removes its socket, answers on, and ends with its last connection. `reap_left` follows.
    ///
    /// # Errors
    /// It does not run.
    pub fn leave(&mut self, n: usize) -> anyhow::Result<()> {
        let index = self.replicas.iter().position(|replica| replica.n == n);
        let Replica { child, .. } = self.replicas.remove(index.with_context(|| format!("replica {n} does not run"))?);
        self.leaving.push(Leaving { n, child, deadline: Instant::now() + LEAVE_DEADLINE });
        // It is to end, however it does.
        self.stack.make_expendable(child);
        // Fails only if it has ended, which `reap_left` notices.
        let _ = self.stack.kill(child, Signal::SIGTERM);
        self.stack.remove_endpoint(&admin_name(n))?;
        self.scrape_replicas()
    }

    /// Forgets replicas that have left, so that their numbers are free again, and kills those that take longer than 20 s. Returns how many
    /// still leave.
    ///
    /// # Errors
    /// One does not end after SIGKILL.
    pub async fn reap_left(&mut self) -> anyhow::Result<usize> {
        let mut index = 0;
        while let Some(&Leaving { n, child, deadline }) = self.leaving.get(index) {
            let runs = self.stack.pid(child).is_some();
            if runs && Instant::now() < deadline {
                index += 1;
                continue;
            }
            if runs {
                eprintln!("replica {n} did not leave within {LEAVE_DEADLINE:?} and was killed");
                self.stack.kill(child, Signal::SIGKILL)?;
            }
            self.stack.stop_child(child).await?;
            self.leaving.remove(index);
        }
        Ok(self.leaving.len())
    }

    /// Waits until all replicas that leave have ended: at most 20 s.
    ///
    /// # Errors
    /// As `reap_left`.
    pub async fn wait_left(&mut self) -> anyhow::Result<()> {
        while self.reap_left().await? > 0 {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    pub async fn stop_replicas(&mut self) -> anyhow::Result<()> {
        if self.plan.slots.is_some() {
            // All at the same time: each waits until the gateway has closed its connections.
            for n in self.replicas.iter().map(|replica| replica.n).collect::<Vec<_>>() {
                self.leave(n)?;
            }
            return self.wait_left().await;
        }
        for replica in self.replicas.drain(..) {
            self.stack.stop_child(replica.child).await?;
        }
        Ok(())
    }

    /// With slots Prometheus has a list of the replicas that changes.
    fn scrape_replicas(&self) -> anyhow::Result<()> {
        let (Some(prometheus), Some(_)) = (&self.prometheus, self.plan.slots) else { return Ok(()) };
        let target = |replica: &Replica| (format!("api-{}", replica.n), replica.admin.replace("http://", ""));
        prometheus.add(&job("api", self.replicas.iter().map(target)))
    }

    /// Starts the n-th replica alone and waits until it is ready; answers its child and the address it listens on. For
    /// measuring one replica without its gateway: `stop_replicas` does not know it.
    pub async fn start_replica(
        &mut self,
        n: usize,
        profile: Profile,
        sets: &[String],
    ) -> anyhow::Result<(ChildId, SocketAddr)> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let replica = self.spawn_replica(n, address.into(), profile, sets)?;
        self.wait_ready(&replica).await?;
        Ok((replica.child, address))
    }

    async fn wait_ready(&self, replica: &Replica) -> anyhow::Result<()> {
        self.stack.wait_ready(replica.child, READY_DEADLINE, || self.is_ready(replica)).await
    }

    async fn is_ready(&self, replica: &Replica) -> bool {
        let answer = self.http.get(format!("{}/readyz", replica.admin)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    pub(super) fn spawn_replica(
        &mut self,
        n: usize,
        listen: Endpoint,
        profile: Profile,
        sets: &[String],
    ) -> anyhow::Result<Replica> {
        let store = &self.plan.store;
        let addresses: Vec<String> = self.proxy.addresses.iter().map(Endpoint::to_string).collect();
        let mut config = ApiConfig::new(profile, StoreConfig::spread_over(&addresses), &self.redis.socket_url);
        config.http.listen = listen;
        // Only the load generator and users of this machine reach the gateway.
        config.telemetry = TelemetryConfig { trust_caller: true, ..self.plan.telemetry.clone() };
        config.http.admin = SocketAddr::from(([127, 0, 0, 1], self.admins[n]));
        // All replicas share this machine: more threads would only take turns.
        config.http.worker_threads = 1;
        config.http.replicas = self.plan.replicas;
        if self.plan.slots.is_some() {
            config.http.leave_ms = LEAVE.as_millis() as u64;
        }
        let name = format!("api-{n}");
        if let Some(quota) = self.plan.quota {
            config.http.work_us = quota.work_us;
            match self.stack.quotas() {
                Some(QuotaMode::Kernel(quotas)) => {
                    config.http.cpu_stat = quotas.stat_file(&name).display().to_string();
                }
                _ => config.http.cpu_quota = quota.cores.get(),
            }
        }
        config.store.pool_size = self.plan.pool_size();
        config.store.max_waiting = store.max_waiting as usize;
        config.store.checkout_timeout_ms = store.checkout_timeout_ms;
        config.store.order = match store.order {
            scenario::Order::Newest => QueueOrder::Newest,
            scenario::Order::Oldest => QueueOrder::Oldest,
        };
        let file = self.stack.child_dir(&name)?.join("config.toml");
        std::fs::write(&file, toml::to_string(&config)?).with_context(|| format!("cannot write {}", file.display()))?;
        let events = self.kafka.as_ref().map(replica_event_sets).unwrap_or_default();
        let all_sets = events.iter().chain(&self.plan.sets).chain(sets);
        let spec = Spec::new(name, own_program()?)
            .args(["serve", "api", "--config"])
            .args([file])
            .args(all_sets.flat_map(|set| ["--set".to_owned(), set.clone()]));
        let spec = match self.plan.quota {
            Some(quota) => spec.cores(quota.cores),
            None => spec,
        };
        let spec = if self.ends_allowed { spec.expendable() } else { spec };
        let child = self.stack.spawn(spec)?;
        let admin = format!("http://{}", config.http.admin);
        Ok(Replica { n, child, admin, started: Instant::now(), ready: None })
    }
}

fn admin_name(n: usize) -> String {
    format!("api-{n}-admin")
}

/// Where the gateway finds the n-th replica. The stack's processes talk over Unix sockets: loopback TCP would take a tenth
/// of the machine at the article's load.
pub(super) fn replica_socket(stack: &Stack, n: usize) -> Endpoint {
    Endpoint::Unix(stack.socket_path(&format!("api-{n}")))
}

/// Settings of replicas, `key=value`.
fn replica_event_sets(kafka: &kafka::Kafka) -> Vec<String> {
    vec![format!("kafka.brokers={}", kafka.bootstrap), "features=kafka".to_owned()]
}
