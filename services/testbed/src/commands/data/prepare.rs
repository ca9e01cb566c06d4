//! `testbed data prepare`: what `up` does with the data of its own stack, for one that somebody else has started.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, ensure};
use launcher::Description;
use prometheus::Registry;
use stores::{Store, StoreMetrics};

use crate::{commands::up::KNOWN_IDS, data, stack::endpoints, stack::service};

/// Migrates, imports, builds the model, and writes the ids for the load generator last: a run that was cut short is begun anew by the
/// next, and one that was done is not repeated, unless more synthetic users are asked for than there are.
pub async fn run(source: data::Source) -> anyhow::Result<ExitCode> {
    let stack = crate::commands::running_stack()?;
    let servers = endpoints::mysql_servers(&stack);
    ensure!(!servers.is_empty(), "the stack has no mysql-00");
    let ids = known_ids_file(&stack)?;
    let config = service::direct_store(&servers);
    stores::migrate(&config).await?;
    let store = Store::new(config, &StoreMetrics::new(&Registry::new())?)?;
    let enough = prepared(ids)?.is_some_and(|there| match source {
        data::Source::Generator(users) => there >= users as usize,
        data::Source::File(_) => true,
    });
    if let Some(model) = store.latest_model().await?.filter(|_| enough) {
        println!("prepared before: model {} is in the store; nothing was done", model.version);
        return Ok(ExitCode::SUCCESS);
    }
    println!("reading the data");
    let loaded = source.load().await?;
    println!("importing {} events of {} users", loaded.dataset.events.len(), loaded.dataset.users.len());
    data::import(&store, &loaded.dataset, |_| ()).await?;
    let version = data::build_model(&store).await?;
    write_whole(ids, &data::known_ids(&loaded.dataset))?;
    println!("model {version} is in the store, the ids in {}", ids.display());
    Ok(ExitCode::SUCCESS)
}

fn known_ids_file(stack: &Description) -> anyhow::Result<&Path> {
    stack.endpoints.get(KNOWN_IDS).map(Path::new).with_context(|| format!("the stack has no {KNOWN_IDS}"))
}

/// How many users the store was prepared with.
fn prepared(ids: &Path) -> anyhow::Result<Option<usize>> {
    match std::fs::read_to_string(ids) {
        Ok(text) => Ok(Some(text.lines().count())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", ids.display())),
    }
}

/// The file is there whole or not at all.
fn write_whole(file: &Path, text: &str) -> anyhow::Result<()> {
    let draft = file.with_extension("draft");
    std::fs::write(&draft, text)
        .and_then(|()| std::fs::rename(&draft, file))
        .with_context(|| format!("cannot write {}", file.display()))
}
