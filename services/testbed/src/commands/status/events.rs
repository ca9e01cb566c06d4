//! The path of events: whether Kafka responds, and owner and lag of each partition by the workers' metrics.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use contract::SHARDS;
use serde::Serialize;
use tokio::{net::TcpStream, time::timeout};

use crate::stack::{endpoints, service::KAFKA};

const TIMEOUT: Duration = Duration::from_millis(800);
const LAG: &str = "testbed_worker_event_lag";
const PARTITIONS: &str = "testbed_worker_event_partitions";
/// Columns of the table.
const COLUMNS: usize = 4;

#[derive(Debug, Serialize)]
pub struct Events {
    pub kafka: Kafka,
    /// In the order of their numbers.
    pub partitions: Vec<Partition>,
    /// Workers whose metrics cannot be read.
    pub silent_workers: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Kafka {
    /// `host:port`
    pub address: String,
    /// It accepts connections. A stopped process does that too, until its queue is full.
    pub responds: bool,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Partition {
    pub partition: usize,
    /// The worker that consumes it, or has stopped at a position that the topic does not have.
    pub owner: Option<String>,
    pub stopped: bool,
    /// Messages that the owner has yet to process.
    pub lag: Option<u64>,
}

/// `None`: the stack has no Kafka.
///
/// # Errors
/// The HTTP client cannot be built.
pub async fn read(endpoints: &BTreeMap<String, String>) -> anyhow::Result<Option<Events>> {
    let Some(address) = endpoints.get(KAFKA) else { return Ok(None) };
    let http = runtime::http::plain().timeout(TIMEOUT).build()?;
    let metrics = endpoints::numbered(endpoints, "worker").map(async |(name, _)| {
        let text = async {
            let url = format!("{}/metrics", endpoints.get(&format!("{name}-admin"))?);
            let answer = http.get(url).send().await.and_then(reqwest::Response::error_for_status).ok()?;
            answer.text().await.ok()
        };
        (name.to_owned(), text.await)
    });
    let (connected, metrics) =
        tokio::join!(timeout(TIMEOUT, TcpStream::connect(address)), futures::future::join_all(metrics));
    let kafka = Kafka { address: address.clone(), responds: matches!(connected, Ok(Ok(_))) };
    Ok(Some(combine(kafka, metrics)))
}

/// `metrics`: the pages of the workers by name.
fn combine(kafka: Kafka, metrics: Vec<(String, Option<String>)>) -> Events {
    let mut partitions: Vec<_> =
        (0..usize::from(SHARDS)).map(|partition| Partition { partition, ..Partition::default() }).collect();
    let mut silent_workers = Vec::new();
    for (worker, page) in metrics {
        let Some(page) = page else {
            silent_workers.push(worker);
            continue;
        };
        for partition in &mut partitions {
            let number = format!("partition=\"{}\"", partition.partition);
            let value = |series, labels: &[&str]| value(&page, series, labels);
            let stopped = value(PARTITIONS, &[&number, "state=\"stopped\""]) == Some(1);
            if stopped || value(PARTITIONS, &[&number, "state=\"consuming\""]) == Some(1) {
                let lag = value(LAG, &[&number]);
                *partition = Partition { owner: Some(worker.clone()), stopped, lag, partition: partition.partition };
            }
        }
    }
    Events { kafka, partitions, silent_workers }
}

/// Of the first series with this name and these labels, in Prometheus's text.
fn value(page: &str, series: &str, labels: &[&str]) -> Option<u64> {
    page.lines().find_map(|line| {
        let (of, value) = line.strip_prefix(series)?.strip_prefix('{')?.rsplit_once("} ")?;
        labels.iter().all(|label| of.split(',').any(|part| part == *label)).then(|| value.parse().ok())?
    })
}

/// For a terminal.
pub fn table(seen: &Events) -> String {
    let responds = if seen.kafka.responds { "responds" } else { "does not respond" };
    let lag: u64 = seen.partitions.iter().filter_map(|partition| partition.lag).sum();
    let mut text = format!("events\n  {:<14} {}, {responds}; {lag} messages behind\n", "kafka", seen.kafka.address);
    for row in seen.partitions.chunks(COLUMNS) {
        let cells: Vec<String> = row.iter().map(cell).collect();
        // Writing to a string cannot fail.
        _ = writeln!(text, "  {}", cells.join("  ").trim_end());
    }
    if !seen.silent_workers.is_empty() {
        _ = writeln!(text, "  do not respond: {}", seen.silent_workers.join(", "));
    }
    text
}

fn cell(partition: &Partition) -> String {
    let owner = partition.owner.as_deref().unwrap_or("no owner");
    let lag = match (partition.stopped, partition.lag) {
        (true, _) => "stopped".to_owned(),
        (false, Some(lag)) => format!("lag {lag}"),
        (false, None) => String::new(),
    };
    format!("{:>2} {owner:<10} {lag:<10}", partition.partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(consuming: usize, lag: u64) -> String {
        let series = (0..usize::from(SHARDS)).map(|partition| {
            let (owns, lag) = if partition == consuming { (1, lag) } else { (0, 0) };
            format!(
                "testbed_worker_event_lag{{partition=\"{partition}\"}} {lag}\n\
                 testbed_worker_event_partitions{{partition=\"{partition}\",state=\"consuming\"}} {owns}\n\
                 testbed_worker_event_partitions{{partition=\"{partition}\",state=\"stopped\"}} 0\n"
            )
        });
        series.collect()
    }

    #[test]
    fn a_partition_belongs_to_the_worker_that_consumes_it() {
        let kafka = Kafka { address: "127.0.0.1:9092".into(), responds: true };
        let stopped = page(3, 9).replace("\"4\",state=\"stopped\"} 0", "\"4\",state=\"stopped\"} 1");
        let pages = vec![
            ("worker-0".to_owned(), Some(page(1, 7))),
            ("worker-1".to_owned(), Some(stopped)),
            ("worker-2".to_owned(), None),
        ];
        let seen = combine(kafka, pages);
        let of = |owner: &str, partition, stopped, lag| Partition {
            partition,
            owner: Some(owner.into()),
            stopped,
            lag: Some(lag),
        };
        assert_eq!(seen.partitions[1], of("worker-0", 1, false, 7));
        assert_eq!(seen.partitions[3], of("worker-1", 3, false, 9));
        assert_eq!(seen.partitions[4], of("worker-1", 4, true, 0));
        assert_eq!(seen.partitions[11], Partition { partition: 11, ..Partition::default() });
        let text = table(&seen);
        for part in ["127.0.0.1:9092, responds; 16 messages behind", "no owner", "lag 7", "stopped", "worker-2"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
