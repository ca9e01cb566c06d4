//! Tables and checks of `experiment transports`. Pure.

use report::{Table, Verdict};

use super::{Figures, Measured, Over, cost::Cost};

pub fn tables(measured: &[Measured], costs: &[Cost]) -> Vec<Table> {
    vec![conditions(measured), compared_with_the_article(measured, costs)]
}

fn conditions(measured: &[Measured]) -> Table {
    let mut rows = Vec::new();
    for one in measured {
        for (over, figures) in [("TCP", &one.tcp), ("UDP", &one.udp)] {
            rows.push(row(&format!("{}, {over}", one.condition), figures));
        }
    }
    let meaning = "No node failed. Delays count from the first time a heartbeat was sent. Suspected and offline: nodes that were silent \
                   for 3 and 5 s, the article's limits. Datagrams per heartbeat include repetitions; closed: connections.";
    let head = [
        "condition",
        "arrived, %",
        "delay p50, ms",
        "p99",
        "max",
        "longest silence, s",
        "suspected",
        "offline",
        "datagrams per heartbeat",
        "closed",
    ];
    Table::new("Heartbeats that arrive", meaning, &head, rows)
}

fn row(name: &str, figures: &Figures) -> Vec<String> {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".into());
    vec![
        name.to_owned(),
        format!("{:.1}", arrived_pct(figures)),
        format!("{:.1}", figures.delay_p50_ms),
        format!("{:.1}", figures.delay_p99_ms),
        format!("{:.1}", figures.delay_max_ms),
        format!("{:.2}", figures.silence_max_s),
        figures.suspected.to_string(),
        figures.offline.to_string(),
        or_dash(figures.datagrams.map(|sent| format!("{:.2}", sent as f64 / figures.due as f64))),
        or_dash(figures.given_up.map(|count| count.to_string())),
    ]
}

fn arrived_pct(figures: &Figures) -> f64 {
    100.0 * figures.arrived as f64 / figures.due as f64
}

fn compared_with_the_article(measured: &[Measured], costs: &[Cost]) -> Table {
    let under = |condition: &str, show: fn(&Figures) -> String| {
        let found = measured.iter().find(|one| one.condition == condition);
        found.map_or_else(|| ["–".into(), "–".into()], |one| [show(&one.tcp), show(&one.udp)])
    };
    let cost = |show: fn(&Cost) -> String| {
        [Over::Tcp, Over::Udp].map(|over| costs.iter().find(|cost| cost.over == over).map(show).unwrap_or_default())
    };
    let line = |name: &str, article: [&str; 2], ours: [String; 2]| {
        let [article_tcp, article_udp] = article.map(str::to_owned);
        let [tcp, udp] = ours;
        vec![name.to_owned(), article_tcp, tcp, article_udp, udp]
    };
    let given_up = |figures: &Figures| match figures.given_up {
        Some(count) => format!("a reset: {count} connections reopened, silent {:.1} s", figures.silence_max_s),
        None => format!("a reset: nothing to open, silent {:.1} s", figures.silence_max_s),
    };
    let timely = |figures: &Figures| format!("20 % loss: p99 {:.0} ms", figures.delay_p99_ms);
    let stalled =
        |figures: &Figures| format!("a 4 s stall: {} suspected, {} offline", figures.suspected, figures.offline);
    let rows = vec![
        line("connection", ["built in", "by hand"], under("reset", given_up)),
        line("timeliness", ["subject to congestion control", "more under control"], under("20 % loss", timely)),
        line(
            "cost",
            ["higher (keeps a connection)", "low"],
            cost(|cost| {
                format!(
                    "{:.0} µs CPU per heartbeat, {:.0} files per node",
                    cost.cpu_us_per_beat, cost.descriptors_per_node
                )
            }),
        ),
        line(
            "an outage of the network",
            ["closed means failed", "N repetitions, then offline"],
            under("4 s stall", stalled),
        ),
        line("suited for", ["long-lived, stable connections", "mobile clients, devices"], ["–".into(), "–".into()]),
    ];
    Table::new(
        "Compared with the article's table 2.5",
        "The article has words only. Our figures are from the table above; the cost is that of a heartbeat with its acknowledgement, without faultproxy.",
        &["property", "TCP, article", "TCP, here", "UDP, article", "UDP, here"],
        rows,
    )
}

pub fn verdicts(measured: &[Measured]) -> Vec<Verdict> {
    let find = |condition: &str| measured.iter().find(|one| one.condition == condition);
    let mut all = Vec::new();
    if let Some(calm) = find("no fault") {
        let complete = |figures: &Figures| arrived_pct(figures) >= 99.0 && figures.suspected == 0;
        let verdict = Verdict::new(
            "without a fault every heartbeat arrives",
            "≥ 99 % over both, no node suspected".into(),
            format!("TCP {:.1} %, UDP {:.1} %", arrived_pct(&calm.tcp), arrived_pct(&calm.udp)),
            complete(&calm.tcp) && complete(&calm.udp),
            "a heartbeat at the edge of a condition may count for the next one",
        );
        all.push(verdict.within(&calm.validity));
    }
    if let Some(some) = find("5 % loss") {
        let verdict = Verdict::new(
            "5 % loss takes no node offline",
            "0 nodes over both".into(),
            format!("TCP {}, UDP {}", some.tcp.offline, some.udp.offline),
            some.tcp.offline + some.udp.offline == 0,
            "",
        );
        all.push(verdict.within(&some.validity));
    }
    if let Some(much) = find("20 % loss") {
        let verdict = Verdict::new(
            "under loss UDP is faster than TCP",
            "p99 not above TCP's at 20 % loss".into(),
            format!("UDP {:.0} ms, TCP {:.0} ms", much.udp.delay_p99_ms, much.tcp.delay_p99_ms),
            much.udp.delay_p99_ms <= much.tcp.delay_p99_ms,
            "as in the article; TCP loss is modelled",
        );
        all.push(verdict.within(&much.validity));
    }
    all
}
