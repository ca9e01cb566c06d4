//! Servers, a topic that is written once, and the processes that consume it from its start.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use contract::{Event, ItemId, ShardId, UserId};
use eventlog::{KafkaConfig, Producer, ProducerMetrics};
use launcher::{Signal, Spec, cpu};
use loadtest::behaviour::Behaviour;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, mysql::MySqlConnectOptions};
use tokio::time::{Instant, sleep};

use super::PER_CPU_S;
use crate::{
    data,
    instruments::{comparison::Figures, scrape::Reading},
    roles::topic_reader,
    stack::{
        control_plane::{self, ControlPlane},
        event_stack::{self, EventStack},
        service::own_program,
    },
};

/// Values of the label `stage` of the worker's histogram.
pub(super) const STAGES: [&str; 4] = ["read", "fold", "write", "publish"];
const STAGE_SECONDS: &str = "testbed_worker_event_stage_seconds_sum";
const BATCH: &str = "testbed_worker_event_batch_events";
const PUBLISHED: &str = "testbed_worker_event_freshness_seconds_count";
const HANDLED: &str = "testbed_worker_events_total";

const USERS: u32 = 20_000;
const ITEMS: u32 = 2_000;
const SEED: u64 = 1;
/// Of the behaviour, for its timestamps.
const PER_S: f64 = 2_000.0;
/// 2026-01-01, after the generator's data.
const BEGIN_MS: i64 = 1_767_225_600_000;
/// Of one call of the producer.
const CHUNK: usize = 1_000;
const SEND_LIMIT: Duration = Duration::from_secs(30);
/// A scrape costs the worker about a millisecond.
const POLL: Duration = Duration::from_millis(500);
/// So many looks at a worker that has done nothing since the one before: it is done.
const QUIET_POLLS: u32 = 3;
const SCRAPE_LIMIT: Duration = Duration::from_secs(5);
const RUN_LIMIT: Duration = Duration::from_secs(300);

/// Whether the worker writes lists to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    Published,
    Off,
}

pub(super) struct Servers {
    stack: EventStack,
    plane: ControlPlane,
    mysql: MySqlConnection,
    events: u64,
    worker_sets: Vec<String>,
    http: reqwest::Client,
}

/// What a worker and its servers have done so far.
#[derive(Clone)]
struct Moment {
    at: Instant,
    worker: Reading,
    handled: f64,
    /// Events whose lists are in Redis, or would be.
    published: f64,
    worker_s: f64,
    mysql_s: f64,
    redis_s: f64,
}

pub(super) fn stage_figure(stage: &str) -> &'static str {
    match stage {
        "read" => "stage_read_us_per_event",
        "fold" => "stage_fold_us_per_event",
        "write" => "stage_write_us_per_event",
        _ => "stage_publish_us_per_event",
    }
}

impl Servers {
    /// With a topic of so many events. No worker runs.
    pub(super) async fn start(events: u64) -> anyhow::Result<Self> {
        let dataset = model::generate(&data::generator(USERS, Some(ITEMS), SEED))?;
        let plan = event_stack::Plan { replicas: 1, ..event_stack::Plan::new("bench") };
        let mut stack = EventStack::start(plan, &dataset).await?;
        let control_plane = control_plane::Plan { monitors: 1, workers: 1, ..control_plane::Plan::default() };
        let plane = stack.start_control_plane(&control_plane).await?;
        let worker = plane.workers.first().context("there is no worker")?;
        let worker_sets = worker.sets.clone();
        let port = stack.service.servers.first().context("there is no MySQL server")?.port;
        let options = MySqlConnectOptions::new().host("127.0.0.1").port(port).username("root");
        let mysql = MySqlConnection::connect_with(&options).await?;
        let http = runtime::http::plain().timeout(SCRAPE_LIMIT).build()?;
        let mut servers = Self { stack, plane, mysql, events, worker_sets, http };
        servers.stop_worker().await?;
        servers.fill_topic(&dataset).await?;
        Ok(servers)
    }

    async fn fill_topic(&self, dataset: &model::Dataset) -> anyhow::Result<()> {
        let config = KafkaConfig { brokers: self.stack.brokers()?.to_owned(), ..KafkaConfig::default() };
        eventlog::prepare_topics(&config, SEND_LIMIT).await?;
        let producer = Producer::start(&config, ProducerMetrics::new(&prometheus::Registry::new())?)?;
        for chunk in invented(dataset, self.events as usize)?.chunks(CHUNK) {
            producer.send(chunk, None, Instant::now() + SEND_LIMIT).await.context("cannot fill the topic")?;
        }
        Ok(())
    }

    /// The worker as in production, with a control plane of one monitor.
    pub(super) async fn worker(&mut self, lists: Lists) -> anyhow::Result<Figures> {
        self.empty_tables().await?;
        let mut sets = self.worker_sets.clone();
        if lists == Lists::Off {
            sets.push("redis.url=".to_owned());
        }
        let worker = self.plane.workers.first_mut().context("there is no worker")?;
        worker.sets = sets;
        worker.restart(&mut self.stack.service.stack).await?;
        let begun = Instant::now();
        let (warm, all) = (self.events as f64 / 20.0, self.events as f64);
        let (mut first, mut last, mut quiet) = (None, None::<Moment>, 0);
        // Lists are published some time after their events are written.
        while quiet < QUIET_POLLS || last.as_ref().is_none_or(|last| last.handled < all) {
            sleep(POLL).await;
            ensure!(begun.elapsed() < RUN_LIMIT, "the worker did not consume {all} events within {RUN_LIMIT:?}");
            // It does not listen at first.
            let Ok(now) = self.moment().await else { continue };
            if first.is_none() && now.handled >= warm {
                first = Some(now.clone());
            }
            if last.as_ref().is_some_and(|last| (last.handled, last.published) == (now.handled, now.published)) {
                quiet += 1;
            } else {
                (last, quiet) = (Some(now), 0);
            }
        }
        let (first, last) = first.zip(last).context("the worker consumed nothing")?;
        ensure!(last.handled > first.handled, "the worker consumed all events between two looks at it: send more");
        self.stop_worker().await?;
        Ok(figures(&first, &last))
    }

    async fn moment(&self) -> anyhow::Result<Moment> {
        let worker = self.plane.workers.first().context("there is no worker")?;
        let stack = &self.stack.service.stack;
        let pid = stack.pid(worker.child).context("the worker has ended")?;
        let text = self.http.get(format!("{}/metrics", worker.admin)).send().await?.error_for_status()?.text().await?;
        let reading = Reading::of([text.as_str()]);
        // Late events count as new ones, too.
        let outcomes = ["new", "duplicate", "dead_letter"].map(|outcome| format!("outcome=\"{outcome}\""));
        let handled = outcomes.iter().map(|label| reading.sum(HANDLED, &[label])).sum();
        let seconds = |pid: u32| cpu::process_seconds(pid).context("a measured process has ended");
        let mysql = self.stack.service.servers.first().and_then(|server| stack.pid(server.child));
        Ok(Moment {
            at: Instant::now(),
            handled,
            published: reading.sum(PUBLISHED, &[]),
            worker: reading,
            worker_s: seconds(pid)?,
            mysql_s: seconds(mysql.context("MySQL has ended")?)?,
            redis_s: seconds(self.stack.service.redis.pid)?,
        })
    }

    /// A loop that decodes the events and inserts the rows of the log.
    pub(super) async fn inserts(&mut self) -> anyhow::Result<Figures> {
        self.empty_tables().await?;
        let port = self.stack.service.servers.first().map(|server| server.port);
        self.read_topic(port).await
    }

    /// A loop that decodes the events.
    pub(super) async fn decodes(&mut self) -> anyhow::Result<Figures> {
        self.read_topic(None).await
    }

    async fn read_topic(&mut self, mysql_port: Option<u16>) -> anyhow::Result<Figures> {
        let dir = self.stack.service.stack.child_dir("topic-reader")?;
        let (file, result) = (dir.join("plan.json"), dir.join("result.json"));
        let brokers = self.stack.brokers()?.to_owned();
        let plan = topic_reader::Plan { brokers, events: self.events, mysql_port, result: result.clone() };
        std::fs::write(&file, serde_json::to_vec(&plan)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let spec = Spec::new("topic-reader", own_program()?).args(["serve", "topic-reader"]).args([&file]);
        self.stack.service.stack.run(spec, RUN_LIMIT).await?;
        let text = std::fs::read_to_string(&result).with_context(|| format!("cannot read {}", result.display()))?;
        let outcome: topic_reader::Outcome = serde_json::from_str(&text).context("the reader wrote something else")?;
        let events = outcome.events as f64;
        Ok(Figures::from([
            (PER_CPU_S, events / outcome.cpu_s),
            ("cpu_us_per_event", 1e6 * outcome.cpu_s / events),
            ("events_per_s", events / outcome.seconds),
        ]))
    }

    async fn stop_worker(&mut self) -> anyhow::Result<()> {
        let worker = self.plane.workers.first().context("there is no worker")?;
        let stack = &mut self.stack.service.stack;
        worker.kill(stack, Signal::SIGKILL)?;
        stack.stop_child(worker.child).await
    }

    /// And the positions at the start of the topic. The fences stay.
    async fn empty_tables(&mut self) -> anyhow::Result<()> {
        for schema in ShardId::all().map(ShardId::schema) {
            for table in ["behaviour", "users", "features"] {
                self.mysql.execute(sqlx::raw_sql(AssertSqlSafe(format!("TRUNCATE TABLE {schema}.{table}")))).await?;
            }
            let reset =
                format!("UPDATE {schema}.ownership SET arrival_base = arrival_base + next_offset, next_offset = 0");
            self.mysql.execute(sqlx::raw_sql(AssertSqlSafe(reset))).await?;
        }
        self.stack.service.flush_cache().await
    }

    pub(super) fn versions(&self) -> Vec<(&'static str, String)> {
        let service = &self.stack.service;
        let mysql = service.servers.first().map(|server| ("store", server.version.clone()));
        let kafka = service.kafka.as_ref().map(|kafka| ("kafka", kafka.version.clone()));
        [("redis", service.redis.version.clone())].into_iter().chain(kafka).chain(mysql).collect()
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.mysql.close().await?;
        self.stack.stop().await
    }
}

fn figures(first: &Moment, last: &Moment) -> Figures {
    let events = last.handled - first.handled;
    let us_per_event = |seconds: f64| 1e6 * seconds / events;
    let cpu_s = last.worker_s - first.worker_s;
    let stage = |stage: &str| {
        let label = format!("stage=\"{stage}\"");
        (stage_figure(stage), us_per_event(last.worker.since(&first.worker, STAGE_SECONDS, &[&label])))
    };
    let of_batches = |part: &str| last.worker.since(&first.worker, &format!("{BATCH}_{part}"), &[]);
    let others = [
        ("events_per_batch", of_batches("sum") / of_batches("count")),
        (PER_CPU_S, events / cpu_s),
        ("cpu_us_per_event", us_per_event(cpu_s)),
        ("mysql_cpu_us_per_event", us_per_event(last.mysql_s - first.mysql_s)),
        ("redis_cpu_us_per_event", us_per_event(last.redis_s - first.redis_s)),
        ("events_per_s", events / (last.at - first.at).as_secs_f64()),
    ];
    STAGES.into_iter().map(stage).chain(others).collect()
}

/// Behaviour of the data's users, in order of time.
fn invented(dataset: &model::Dataset, count: usize) -> anyhow::Result<Vec<Event>> {
    let (users, items) = (data::known_ids(dataset), data::known_items(dataset));
    let mut behaviour = Behaviour::new(SEED, &users, &items, PER_S)?;
    let mut events = Vec::with_capacity(count);
    while events.len() < count {
        let request = behaviour.next_request();
        let sent_ms = BEGIN_MS + request.at.as_millis() as i64;
        for (n, event) in (0_i64..).zip(request.events) {
            events.push(Event {
                user_id: UserId::new(&event.user_id)?,
                item_id: ItemId::new(&event.item_id)?,
                kind: event.event,
                at_ms: sent_ms + n,
                weight: event.weight.map_or_else(|| event.event.default_weight(), |weight| weight as f32),
            });
        }
    }
    events.truncate(count);
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_those_of_the_datas_users_and_few_are_repeated() {
        let dataset = model::generate(&data::generator(500, Some(100), 1)).unwrap();
        let events = invented(&dataset, 5_000).unwrap();
        assert_eq!(events.len(), 5_000);
        assert!(events.iter().all(|event| dataset.users.contains(&event.user_id)));
        let key = |event: &Event| (event.user_id.clone(), event.at_ms, event.item_id.clone(), event.kind);
        let distinct: std::collections::HashSet<_> = events.iter().map(key).collect();
        assert!(distinct.len() > 4_950, "{}", distinct.len());
    }

    #[test]
    fn figures_are_those_between_two_moments() {
        let moment = |at, handled, worker_s, write_s| Moment {
            at,
            handled,
            published: 0.0,
            worker: Reading::of([&*format!("{STAGE_SECONDS}{{stage=\"write\"}} {write_s}\n")]),
            worker_s,
            mysql_s: 2.0 * worker_s,
            redis_s: 0.0,
        };
        let begun = Instant::now();
        let figures =
            figures(&moment(begun, 100.0, 1.0, 0.5), &moment(begun + Duration::from_secs(2), 2_100.0, 1.1, 0.9));
        let of = |name: &str| (figures[name] * 1e3).round() / 1e3;
        assert_eq!((of(PER_CPU_S), of("cpu_us_per_event"), of("mysql_cpu_us_per_event")), (20_000.0, 50.0, 100.0));
        assert_eq!(
            (of("stage_write_us_per_event"), of("stage_read_us_per_event"), of("events_per_s")),
            (200.0, 0.0, 1_000.0)
        );
    }
}
