//! `testbed data import|prepare|generate|quality`.

mod prepare;
mod trec;

use std::{fs::File, io::Write, path::Path, process::ExitCode};

use anyhow::Context;
use launcher::Description;
use model::BadRows;
use prometheus::Registry;
use runtime::config::Validate;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stores::{Store, StoreConfig, StoreMetrics};

use crate::{cli::DataCommand, data, progress, stack::endpoints, stack::service};

pub fn run(command: DataCommand) -> anyhow::Result<ExitCode> {
    match command {
        DataCommand::Import { file, strict, json } => super::interruptible(import(file, strict, json)),
        DataCommand::Prepare { data, users } => {
            let source = data.map_or(data::Source::Generator(users), data::Source::File);
            super::interruptible(prepare::run(source))
        }
        DataCommand::Generate { users, items, seed, out } => {
            let dataset = model::generate(&data::generator(users, Some(items), seed))?;
            let out: Box<dyn Write> = match &out {
                Some(path) => Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?),
                None => Box::new(std::io::stdout().lock()),
            };
            match model::write_csv(&dataset, std::io::BufWriter::new(out)) {
                // `data generate | head` is not an error.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                written => written.context("cannot write the events"),
            }?;
            Ok(ExitCode::SUCCESS)
        }
        DataCommand::Quality { file, strict, trec, json } => quality(&file, strict, trec.as_deref(), json),
    }
}

/// What the commands take from the environment, as replicas do: `TESTBED_STORE__PASSWORD` and the other settings of the store.
#[derive(Serialize, Deserialize)]
struct Settings {
    store: StoreConfig,
}

impl Validate for Settings {
    fn validate(&self, problems: &mut Vec<String>) {
        self.store.validate(problems);
    }
}

/// The servers of a stack themselves, not faultproxy.
///
/// # Errors
/// A variable `TESTBED_STORE__…` is no setting, or its value is not valid.
fn store_of(stack: &Description) -> anyhow::Result<StoreConfig> {
    let defaults = Settings { store: service::direct_store(&endpoints::mysql_servers(stack)) };
    Ok(runtime::config::load(defaults, None, &[])?.store)
}

fn bad_rows(strict: bool) -> BadRows {
    if strict { BadRows::Refuse } else { BadRows::Skip }
}

async fn import(file: std::path::PathBuf, strict: bool, json: bool) -> anyhow::Result<ExitCode> {
    // Read first: an invalid file is reported even if no stack is running.
    let (dataset, parsed) = data::read(&file, bad_rows(strict))?;
    let stack = super::running_stack()?;
    let store = Store::new(store_of(&stack)?, &StoreMetrics::new(&Registry::new())?)?;
    let bar = progress::bar(dataset.events.len() as u64, "importing");
    let imported = data::import(&store, &dataset, |rows| bar.set_position(rows as u64)).await?;
    bar.set_message("building the model");
    let version = data::build_model(&store).await?;
    bar.finish_and_clear();
    if json {
        let users = dataset.users.len();
        let report = json!({ "parsed": parsed, "users": users, "added": imported.added, "present": imported.present, "model_version": version });
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!(
            "{}: {} events of {} users and {} items",
            file.display(),
            dataset.events.len(),
            dataset.users.len(),
            dataset.items.len()
        );
        println!("{parsed}");
        println!(
            "{} events added, {} already present; model {version} is built from all events of the store",
            imported.added, imported.present
        );
        println!("replicas load a model when they start: ./testbed down && ./testbed up --data {}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn quality(file: &Path, strict: bool, trec: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let (dataset, parsed) = data::read(file, bad_rows(strict))?;
    if parsed.bad_rows > 0 {
        eprintln!("{parsed}");
    }
    let report = match trec {
        None => model::leave_last_out(&dataset)?,
        Some(dir) => trec::write(&dataset, dir).with_context(|| format!("cannot write into {}", dir.display()))?,
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{}: {} events, {} users ({} evaluated), {} items\n",
        file.display(),
        report.events,
        report.users,
        report.users_evaluated,
        report.items
    );
    println!("{:<22}{:>9} {:>10} {:>10} {:>10}", "all items ranked", "NDCG@10", "± (1 s.e.)", "hit@10", "recall@10");
    let rows = [
        ("item-item (this model)", report.model),
        ("popularity", report.popularity),
        ("recent popularity", report.recent_popularity),
    ];
    for (name, metrics) in rows {
        println!(
            "{name:<22}{:>9.4} {:>10.4} {:>10.4} {:>10.4}",
            metrics.ndcg, metrics.ndcg_standard_error, metrics.hit_rate, metrics.recall
        );
    }
    if let Some(ratio) = report.ndcg_ratio {
        println!(
            "\nNDCG@10 is {ratio:.2} × that of popularity; built in {:.1} s, ranked in {:.1} s",
            report.build_s, report.rank_s
        );
    }
    println!("\nProtocol: {}", report.protocol);
    Ok(ExitCode::SUCCESS)
}
