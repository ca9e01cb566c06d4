//! Tables, charts and sentences. Pure.

use report::{
    Chart, Curve, Drawing, Section, Table,
    numbers::{NO_FIGURE, count, pct},
};
use serde_json::json;

use super::{
    ByLaw, ByQuota, Measured, amdahl,
    even::{Operation, Variant},
    judgement::{ARTICLE_GAIN, gain, serial, skewed_gain},
    popularity::{max_over_mean, server_of},
    rounds::{Estimate, Run, figure, of},
    skew::{CACHED, Skew},
    window::Window,
};

pub fn what(measured: &Measured) -> String {
    let most = measured.counts.last().copied().unwrap_or(1);
    format!(
        "The 16 shards are on 1 to {most} MySQL servers. Clients read users' histories or write events through the store's own client, each the next \
         operation when the last one is over. Real servers have equal CPU quotas. Modelled instances have the article's response time, at equal \
         connections in all. Skewed users are read from instances of fixed capacity, without and behind Redis. The article states nearly \
         {ARTICLE_GAIN} × for 16 instances."
    )
}

/// For the terminal, before anything is measured.
pub fn predictions(measured: &Measured) -> Vec<String> {
    let of_law = measured.law.iter().flat_map(|law| {
        let counts = measured.counts.iter().skip(1);
        counts.map(|&servers| format!("predicted: {servers} modelled instances, {:.2} ×", law.store.gain(servers)))
    });
    let of_skew = measured.skew.iter().flat_map(|skew| {
        skew.cases.iter().map(|case| format!("predicted: {}, {:.2} ×", case.variant.name(), case.gain))
    });
    of_law.chain(of_skew).collect()
}

/// # Errors
/// The figures have no JSON form.
pub fn sections(measured: &Measured) -> anyhow::Result<Vec<Section>> {
    let mut sections = Vec::new();
    if let Some(quota) = &measured.quota {
        sections.push(by_quota(quota, &measured.counts)?);
    }
    if let Some(law) = &measured.law {
        sections.push(by_law(law, &measured.counts)?);
    }
    if let Some(skew) = &measured.skew {
        sections.push(by_skew(skew)?);
    }
    Ok(sections)
}

/// Why figures here differ from the article's.
pub fn remarks(measured: &Measured) -> Vec<String> {
    let most = measured.counts.last().copied().unwrap_or(1);
    let share = article_share().map_or_else(|| NO_FIGURE.into(), |share| pct(100.0 * share));
    let article = format!(
        "The article's {ARTICLE_GAIN} × of 16 instances is a serial share of {share} % by Amdahl's law, or a busiest shard with {:.1} times the mean \
         load. It does not say what its instances shared, nor how popular its users were.",
        16.0 / ARTICLE_GAIN
    );
    let quota = measured.quota.as_ref().filter(|quota| quota.skipped.is_none()).map(|_| {
        format!("Servers with equal quotas share nothing, so that the limit is {most} ×; the article's servers may have shared a host or a disk.")
    });
    let law = measured.law.as_ref().map(|law| {
        format!(
            "At equal connections in all, more instances shorten only the part of the response time that grows with the load: at most {:.2} ×.",
            law.store.most_gain()
        )
    });
    [Some(article), quota, law].into_iter().flatten().collect()
}

/// The serial share that makes 16 servers as fast as the article's.
fn article_share() -> Option<f64> {
    amdahl::serial_share(&[(16.0, ARTICLE_GAIN)])
}

fn estimate(runs: &[Run<Variant>], variant: Variant, of_window: fn(&Window) -> f64) -> Estimate {
    Estimate::of(&figure(runs, &variant, of_window))
}

/// Each operation's gain by the number of servers.
fn curve(name: &str, counts: &[u16], gain: impl Fn(u16) -> f64) -> Curve {
    let points = counts.iter().map(|&servers| (f64::from(servers), gain(servers)));
    Curve { name: name.to_owned(), points: points.filter(|(_, gain)| gain.is_finite()).collect() }
}

fn gains_chart(title: &str, meaning: &str, curves: Vec<Curve>) -> Chart {
    let labels = ("servers".to_owned(), "throughput over that of one".to_owned());
    Chart::new(title, meaning, Drawing::LogLog { x_label: labels.0, y_label: labels.1, curves })
}

fn rows(runs: &[Run<Variant>], counts: &[u16], cells: impl Fn(Variant) -> Vec<String>) -> Vec<Vec<String>> {
    let variants = super::even::variants(counts).into_iter();
    let measured = variants.filter(|variant| of(runs, variant).next().is_some());
    measured.map(|variant| [vec![variant.name()], cells(variant)].concat()).collect()
}

/// For programs: each variant's gain.
fn gains_json(runs: &[Run<Variant>], counts: &[u16]) -> serde_json::Value {
    let of = |operation: Operation| counts.iter().map(move |&servers| (operation, servers));
    let all = Operation::ALL.into_iter().flat_map(of);
    all.map(|(operation, servers)| json!({ "operation": operation, "servers": servers, "gain": gain(runs, operation, servers) }))
        .collect()
}

fn by_quota(quota: &ByQuota, counts: &[u16]) -> anyhow::Result<Section> {
    let title = "Real servers with equal CPU quotas";
    if let Some(reason) = &quota.skipped {
        return Ok(Section::new(title, &format!("Skipped: {reason}."), serde_json::to_value(quota)?));
    }
    let meaning = format!(
        "Each server has {:.0} m CPU ({}), and {} clients in all keep every server busy. CPU per operation counts the servers in use; beside it, \
         that of this process, which runs the clients.",
        1000.0 * quota.cores,
        quota.quotas,
        quota.connections
    );
    let row = |variant: Variant| {
        let used = |window: &Window| {
            100.0 * window.servers_cpu_s / (window.seconds * quota.cores * f64::from(variant.servers))
        };
        vec![
            count(estimate(&quota.runs, variant, Window::per_s).mean),
            format!("{} ×", gain(&quota.runs, variant.operation, variant.servers)),
            estimate(&quota.runs, variant, Window::server_us).text(1.0, 0),
            estimate(&quota.runs, variant, Window::own_us).text(1.0, 0),
            pct(Estimate::of(&figure(&quota.runs, &variant, used)).mean),
            pct(machine(&quota.runs, variant)),
        ]
    };
    let head = ["", "per s", "gain", "CPU per operation, µs", "of the clients, µs", "quota used, %", "machine, %"];
    let serial = |operation| json!({ "operation": operation, "serial_share": serial(&quota.runs, operation) });
    let shares = Operation::ALL.map(|operation| {
        vec![operation.name().to_owned(), format!("{} %", self::serial(&quota.runs, operation).text(100.0, 1))]
    });
    let tables = vec![
        Table::new(
            "By number of servers",
            "Means over the rounds, with 95 % intervals.",
            &head,
            rows(&quota.runs, counts, row),
        ),
        Table::new(
            "Serial share",
            "The share of the work that runs as on one server, by Amdahl's law fitted to all counts of servers. Negative: more than N × of N servers.",
            &["", "serial share"],
            shares.to_vec(),
        ),
    ];
    let curves =
        Operation::ALL.map(|operation| curve(operation.name(), counts, |n| gain(&quota.runs, operation, n).mean));
    let of_article = article_share().unwrap_or(f64::NAN);
    let compared = [
        curve("N servers, N ×", counts, f64::from),
        curve("Amdahl's law through the article's figure", counts, |n| amdahl::gain(of_article, n.into())),
    ];
    let curves = curves.into_iter().chain(compared).collect();
    let chart = gains_chart("Gain of servers with equal quotas", "Both axes are logarithmic.", curves);
    let mut measured = serde_json::to_value(quota)?;
    measured["gains"] = gains_json(&quota.runs, counts);
    measured["serial"] = Operation::ALL.map(serial).to_vec().into();
    Ok(Section::new(title, &meaning, measured).with_tables(tables).with_charts(vec![chart]))
}

/// The busiest round.
fn machine(runs: &[Run<Variant>], variant: Variant) -> f64 {
    figure(runs, &variant, |window| window.validity.cpu_pct).into_iter().fold(0.0, f64::max)
}

fn by_law(law: &ByLaw, counts: &[u16]) -> anyhow::Result<Section> {
    let ByLaw { store, runs } = law;
    let meaning = format!(
        "A command takes {} ms + {} ms × commands in flight on its instance. {} connections in all are divided among the instances and always busy. \
         More instances shorten the second part only. The prediction was made before the run.",
        store.base_ms, store.slope_ms, store.connections
    );
    let row = |variant: Variant| {
        let (per_s, predicted) = (estimate(runs, variant, Window::per_s), store.per_s(variant.servers));
        vec![
            count(per_s.mean),
            count(predicted),
            format!("{} ×", gain(runs, variant.operation, variant.servers)),
            format!("{:.2} ×", store.gain(variant.servers)),
            pct(machine(runs, variant)),
        ]
    };
    let head = ["", "per s", "predicted", "gain", "predicted", "machine, %"];
    let table = Table::new(
        "By number of instances",
        "Means over the rounds, with 95 % intervals.",
        &head,
        rows(runs, counts, row),
    );
    let curves = Operation::ALL.map(|operation| curve(operation.name(), counts, |n| gain(runs, operation, n).mean));
    let curves = curves.into_iter().chain([curve("predicted", counts, |n| store.gain(n))]).collect();
    let chart = gains_chart("Gain of instances at equal connections", "Both axes are logarithmic.", curves);
    let mut measured = serde_json::to_value(law)?;
    measured["gains"] = gains_json(runs, counts);
    measured["predicted"] =
        counts.iter().map(|&n| json!({ "servers": n, "per_s": store.per_s(n), "gain": store.gain(n) })).collect();
    let section = Section::new("Modelled instances at equal connections", &meaning, measured);
    Ok(section.with_tables(vec![table]).with_charts(vec![chart]))
}

/// Load of the busiest server over the mean, as measured.
fn measured_skew(window: &Window, servers: u16) -> f64 {
    let mut load = vec![0.0; usize::from(servers)];
    for shard in contract::ShardId::all() {
        load[server_of(shard, servers)] += window.by_shard[shard.index()] as f64;
    }
    max_over_mean(&load)
}

fn by_skew(skew: &Skew) -> anyhow::Result<Section> {
    let meaning = format!(
        "200,000 users, of whom some are asked for more often. Each modelled instance has {} connections of its own and answers at most {:.0} reads/s. \
         The busiest one is full first: the gain is at most the number of servers ÷ (max/mean load). Both are predicted from the popularity of the \
         users and the hash of their ids. Behind Redis the lists of the {CACHED} most popular users are cached, as after warm-up, and a miss writes none. \
         Most users have no events; under the law a read takes as long.",
        skew.connections, skew.predicted_per_s
    );
    let row = |case: &super::skew::Case| {
        let variant = case.variant;
        let figure = |of: &dyn Fn(&Window) -> f64| Estimate::of(&figure(&skew.runs, &variant, of));
        let from_redis =
            figure(&|window| 100.0 * window.from_redis as f64 / (window.seconds * window.completed_per_s()));
        vec![
            variant.name(),
            figure(&|window| measured_skew(window, variant.servers)).to_string(),
            format!("{:.2}", case.max_over_mean),
            count(figure(&Window::per_s).mean),
            format!("{} ×", skewed_gain(skew, &variant)),
            format!("{:.2} ×", case.gain),
            format!("{} ({})", pct(from_redis.mean), pct(case.from_redis_pct)),
            count(figure(&Window::completed_per_s).mean),
        ]
    };
    let head = [
        "",
        "max/mean load",
        "predicted",
        "reads/s of the servers",
        "gain",
        "predicted",
        "from Redis, % (predicted)",
        "reads/s in all",
    ];
    let table = Table::new(
        "By popularity",
        "Means over the rounds, with 95 % intervals.",
        &head,
        skew.cases.iter().map(row).collect(),
    );
    let mut measured = serde_json::to_value(skew)?;
    measured["gains"] = skew
        .cases
        .iter()
        .map(
            |case| json!({ "variant": case.variant, "gain": skewed_gain(skew, &case.variant), "predicted": case.gain }),
        )
        .collect();
    Ok(Section::new("Skewed users", &meaning, measured).with_tables(vec![table]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::sharding::judgement::tests::measured;

    #[test]
    fn every_variant_has_a_row_as_long_as_the_head() {
        let all = measured();
        let sections = sections(&all).unwrap();
        let rows: Vec<usize> =
            sections.iter().flat_map(|one| one.tables.iter().map(|table| table.rows.len())).collect();
        assert_eq!(rows, [10, 2, 10, 8]);
        for table in sections.iter().flat_map(|section| &section.tables) {
            assert!(table.rows.iter().all(|row| row.len() == table.head.len()), "{table:?}");
        }
        assert_eq!(sections[1].tables[0].rows[4][3..5], ["2.79 (2.79 to 2.79) ×", "2.79 ×"]);
        assert_eq!(sections[0].measured["gains"][4]["servers"], 16);
        assert_eq!(predictions(&all).len(), 4 + 8);
        let remark = remarks(&all).concat();
        assert!(remark.contains("serial share of 14.7 %") && remark.contains("at most 3.16 ×"), "{remark}");
    }

    #[test]
    fn a_skipped_part_says_why() {
        let mut all = measured();
        let quota = all.quota.as_mut().unwrap();
        (quota.skipped, quota.runs) = (Some("the directory /c is read-only".into()), Vec::new());
        let section = &sections(&all).unwrap()[0];
        assert_eq!((section.tables.len(), section.meaning.as_str()), (0, "Skipped: the directory /c is read-only."));
        assert_eq!(section.measured["skipped"], "the directory /c is read-only");
    }

    #[test]
    fn the_measured_skew_is_by_server() {
        let window =
            Window { by_shard: (0..16).map(|shard| if shard == 3 { 40 } else { 4 }).collect(), ..Window::default() };
        assert!((measured_skew(&window, 16) - 40.0 / 6.25).abs() < 1e-12);
        // Shards 1, 3, …, 15 against 0, 2, …, 14.
        assert!((measured_skew(&window, 2) - 68.0 / 50.0).abs() < 1e-12);
    }
}
