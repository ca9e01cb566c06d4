//! The state of nodes and partitions as each monitor of a stack reports it.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use heartbeat::{assign::NodeId, clock::wall_ms, node_state::State, observer::Source};
use monitor::status::{Event, LoggedEvent, SegmentStatus, Status};
use serde::Serialize;

use crate::stack::endpoints;

const TIMEOUT: Duration = Duration::from_millis(800);
const CHANGES_SHOWN: usize = 10;

#[derive(Debug, Serialize)]
pub struct Heartbeats {
    /// `None`: the monitor does not respond.
    pub monitors: BTreeMap<String, Option<Monitor>>,
    pub epoch: u64,
    pub nodes: Vec<Node>,
    pub partitions: Vec<heartbeat::assign::Assignment>,
    /// Copies of the model's segments, as the leading monitor knows them.
    pub segments: Vec<SegmentStatus>,
    /// Reported by the monitor with the latest table; the newest last.
    pub changes: Vec<LoggedEvent>,
}

#[derive(Debug, Serialize)]
pub struct Monitor {
    pub leading: bool,
    /// Number of monitors whose votes count, itself included.
    pub present: usize,
    pub registry_up: bool,
    pub epoch: u64,
}

#[derive(Debug, Serialize)]
pub struct Node {
    pub id: NodeId,
    pub online: bool,
    /// The node has left; it has not failed.
    pub left: bool,
    pub incarnation: u64,
    /// State of the node by monitor.
    pub states: BTreeMap<String, State>,
    /// Time since the last heartbeat that any monitor received, in milliseconds.
    pub silent_ms: f64,
    pub primary_of: usize,
    pub replica_of: usize,
}

/// Requests the status of all monitors; `None` if there are none or none responds.
///
/// # Errors
/// The HTTP client cannot be built.
pub async fn read(endpoints: &BTreeMap<String, String>) -> anyhow::Result<Option<Heartbeats>> {
    let http = runtime::http::plain().timeout(TIMEOUT).build()?;
    let monitors = endpoints::numbered(endpoints, "monitor");
    let asked =
        monitors.map(|(name, url)| (name, http.get(format!("{url}/status")).send())).map(async |(name, answer)| {
            let answer = answer.await;
            let status = match answer {
                Ok(answer) => answer.json::<Status>().await.ok(),
                Err(_) => None,
            };
            (name.to_owned(), status)
        });
    Ok(combine(futures::future::join_all(asked).await))
}

/// Takes the partition table of the monitor with the highest epoch.
fn combine(seen: Vec<(String, Option<Status>)>) -> Option<Heartbeats> {
    let answered = || seen.iter().filter_map(|(name, status)| Some((name, status.as_ref()?)));
    let (_, latest) = answered().max_by_key(|(_, status)| status.table.epoch)?;
    let node = |node: &monitor::status::Node| {
        let views = || answered().filter_map(|(name, s)| Some((name, s.nodes.iter().find(|n| n.id == node.id)?)));
        Node {
            id: node.id.clone(),
            online: node.online,
            left: node.left,
            incarnation: node.incarnation,
            states: views().map(|(name, view)| (name.clone(), view.state)).collect(),
            silent_ms: views().map(|(_, view)| view.silent_ms).fold(f64::INFINITY, f64::min),
            primary_of: node.primary_of,
            replica_of: node.replica_of,
        }
    };
    let mut nodes: Vec<Node> = latest.nodes.iter().map(node).collect();
    nodes.sort_by(|a, b| a.id.cmp(&b.id));
    let monitor = |status: &Status| Monitor {
        leading: status.leading,
        present: status.present,
        registry_up: status.registry_up,
        epoch: status.table.epoch,
    };
    Some(Heartbeats {
        monitors: seen.iter().map(|(name, status)| (name.clone(), status.as_ref().map(monitor))).collect(),
        epoch: latest.table.epoch,
        partitions: latest.table.partitions.clone(),
        segments: answered()
            .find(|(_, status)| status.leading)
            .map(|(_, leader)| leader.segments.clone())
            .unwrap_or_default(),
        changes: latest.changes.clone(),
        nodes,
    })
}

/// Monitors, nodes and the last changes, for a terminal.
pub fn table(seen: &Heartbeats) -> String {
    let mut text = format!("heartbeats, epoch {}\n", seen.epoch);
    for (name, monitor) in &seen.monitors {
        let words = match monitor {
            None => "does not respond".to_owned(),
            Some(Monitor { leading, present, registry_up, epoch }) => format!(
                "{}, {present} of {} monitors present, epoch {epoch}, etcd {}",
                if *leading { "leads" } else { "follows" },
                seen.monitors.len(),
                if *registry_up { "reachable" } else { "unreachable" }
            ),
        };
        // Writing to a string cannot fail.
        _ = writeln!(text, "  {name:<14} {words}");
    }
    let head = format!("{:<14} {:<8} {:>9} {:>9} {:>11}  states", "node", "", "primary", "replica", "silent");
    _ = writeln!(text, "  {head}");
    for node in &seen.nodes {
        let states: Vec<&str> = node.states.values().map(|state| state.as_str()).collect();
        let online = match (node.online, node.left) {
            (true, _) => "online",
            (false, true) => "left",
            (false, false) => "offline",
        };
        let silent = format!("{:.1} s", node.silent_ms / 1e3);
        let Node { id, primary_of, replica_of, .. } = node;
        let states = states.join(" · ");
        _ = writeln!(text, "  {id:<14} {online:<8} {primary_of:>9} {replica_of:>9} {silent:>11}  {states}");
    }
    let now = wall_ms();
    for change in seen.changes.iter().rev().take(CHANGES_SHOWN) {
        let ago = format!("{:.1} s ago", now.saturating_sub(change.at_ms) as f64 / 1e3);
        _ = writeln!(text, "  {ago:>14} {}", words(&change.event));
    }
    text
}

fn words(event: &Event) -> String {
    match event {
        Event::State { node, from, to, cause, silent_ms } => {
            format!("{node}: {} → {} ({}, silent for {silent_ms:.0} ms)", from.as_str(), to.as_str(), cause.as_str())
        }
        Event::Admitted { node, epoch } => format!("{node} is online from epoch {epoch}"),
        Event::Offline { node, epoch } => format!("{node} is offline from epoch {epoch}"),
        Event::Primaries { epoch, moved } => format!("{moved} partitions have new primaries in epoch {epoch}"),
        Event::Unserved { node, partitions, evidence } => {
            let by = match evidence {
                Source::Report => "it reports",
                Source::Requesters => "requesters say",
            };
            format!("{node} beats, but {by} that it does not serve {} of its partitions", partitions.len())
        }
        Event::TablesLost { epoch } => format!("etcd had lost partition tables up to epoch {epoch}"),
        Event::Paused { ms } => format!("the monitor was suspended for {ms:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use heartbeat::assign::Table;

    use super::*;

    fn status(monitor: &str, epoch: u64, state: State) -> Status {
        let node = monitor::status::Node {
            id: "worker-0".into(),
            state,
            incarnation: 7,
            online: epoch < 3,
            left: false,
            silent_ms: 100.0 * epoch as f64,
            weight: 1.0,
            primary_of: 16,
            replica_of: 0,
        };
        let change = LoggedEvent { at_ms: wall_ms(), event: Event::Offline { node: "worker-0".into(), epoch: 3 } };
        Status {
            monitor: monitor.into(),
            leading: epoch == 3,
            leader: None,
            monitors: 3,
            present: 2,
            registry_up: true,
            nodes: vec![node],
            table: Arc::new(Table { epoch, ..Table::default() }),
            segments: Vec::new(),
            changes: vec![change],
        }
    }

    #[test]
    fn the_latest_table_counts_and_the_state_of_every_monitor_is_shown() {
        let name = |n: u8| format!("monitor-{n}");
        let seen = vec![
            (name(0), Some(status("monitor-0", 2, State::Warning))),
            (name(1), Some(status("monitor-1", 3, State::Failed))),
            (name(2), None),
        ];
        let seen = combine(seen).unwrap();
        assert_eq!((seen.epoch, seen.nodes[0].online, seen.nodes[0].silent_ms), (3, false, 200.0));
        let text = table(&seen);
        for part in ["epoch 3", "does not respond", "offline", "warning · failed", "worker-0 is offline from epoch 3"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(combine(vec![(name(0), None)]).is_none());
    }
}
