//! `testbed data prepare`: migrates and fills the store of a stack that `up` has not started.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, ensure};
use launcher::Description;
use prometheus::Registry;
use stores::{Store, StoreMetrics};

use crate::{
    commands::up::{KNOWN_IDS, KNOWN_ITEMS},
    data,
    stack::endpoints,
};

/// Migrates, imports, builds the model, and writes the list of ids last, which marks a complete run. A complete run is not repeated,
/// unless it had fewer synthetic users.
pub async fn run(source: data::Source) -> anyhow::Result<ExitCode> {
    let stack = crate::commands::running_stack()?;
    let has_servers = !endpoints::mysql_servers(&stack).is_empty();
    ensure!(has_servers, "the stack has no mysql-00: add a line mysql-00 = \"host:port\" to its endpoints");
    let ids = known_ids_file(&stack)?;
    // Only for `load events`: a stack may do without.
    let items = stack.endpoints.get(KNOWN_ITEMS).map(Path::new);
    let config = super::store_of(&stack)?;
    stores::migrate(&config).await?;
    let store = Store::new(config, &StoreMetrics::new(&Registry::new())?)?;
    let enough = prepared(ids)?.is_some_and(|there| match source {
        data::Source::Generator(users) => there >= users as usize,
        data::Source::File(_) => true,
    });
    let enough = enough && items.is_none_or(Path::exists);
    if let Some(model) = store.latest_model().await?.filter(|_| enough) {
        println!("already prepared: model {} is in the store; nothing was done", model.version);
        return Ok(ExitCode::SUCCESS);
    }
    println!("reading the data");
    let loaded = source.load().await?;
    println!("importing {} events of {} users", loaded.dataset.events.len(), loaded.dataset.users.len());
    data::import(&store, &loaded.dataset, |_| ()).await?;
    let version = data::build_model(&store).await?;
    if let Some(items) = items {
        write_atomically(items, &data::known_items(&loaded.dataset))?;
    }
    write_atomically(ids, &data::known_ids(&loaded.dataset))?;
    println!("model {version} is in the store, the list of user ids in {}", ids.display());
    Ok(ExitCode::SUCCESS)
}

fn known_ids_file(stack: &Description) -> anyhow::Result<&Path> {
    stack.endpoints.get(KNOWN_IDS).map(Path::new).with_context(|| format!("the stack has no {KNOWN_IDS}"))
}

/// Number of users that the store was prepared with.
fn prepared(ids: &Path) -> anyhow::Result<Option<usize>> {
    match std::fs::read_to_string(ids) {
        Ok(text) => Ok(Some(text.lines().count())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", ids.display())),
    }
}

/// Replaces the file atomically.
fn write_atomically(file: &Path, text: &str) -> anyhow::Result<()> {
    let draft = file.with_extension("draft");
    std::fs::write(&draft, text)
        .and_then(|()| std::fs::rename(&draft, file))
        .with_context(|| format!("cannot write {}", file.display()))
}
