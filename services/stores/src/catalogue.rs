//! The unsharded schema: items, and the item-neighbour model, versioned.

use contract::ItemId;
use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, Row, mysql::MySqlRow};

use crate::{
    command_timeout::{BETWEEN_ROWS, CommandTimeout},
    error::StoreError,
    mysql::Store,
    sql::{id_at, push_hex},
    transaction::finish,
    turn::Turn,
};

/// A complete model in the encoding of the crate `model`.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredModel {
    /// Increases with every import, and is never reused.
    pub version: u64,
    pub header: Vec<u8>,
    pub rows: Vec<(ItemId, Vec<u8>)>,
}

const ROWS_PER_INSERT: usize = 500;
/// Starting replicas may still load the previous version.
const VERSIONS_KEPT: u32 = 2;

impl Store {
    /// Stores a model as the newest one, in one transaction. Returns its version.
    ///
    /// # Errors
    /// The catalogue's server failed. Nothing has changed then.
    pub async fn save_model(&self, header: &[u8], rows: &[(ItemId, Vec<u8>)], now_ms: i64) -> Result<u64, StoreError> {
        let mut pooled = self.inner().catalogue.checkout(Turn::default()).await?;
        let timeout = pooled.command_timeout();
        let result = save(pooled.connection().await?, header, rows, now_ms, timeout).await;
        pooled.write(result)
    }

    /// The newest complete model, if there is any.
    ///
    /// # Errors
    /// The catalogue's server failed.
    pub async fn latest_model(&self) -> Result<Option<StoredModel>, StoreError> {
        let mut pooled = self.inner().catalogue.checkout(Turn::default()).await?;
        loop {
            let result = load(pooled.connection().await?).await;
            if let Some(model) = pooled.read(result)? {
                return Ok(model);
            }
        }
    }
}

async fn save(
    connection: &mut MySqlConnection,
    header: &[u8],
    rows: &[(ItemId, Vec<u8>)],
    now_ms: i64,
    timeout: CommandTimeout,
) -> Result<u64, sqlx::Error> {
    let mut transaction = timeout.run(connection.begin()).await?;
    let version = save_rows(&mut transaction, header, rows, now_ms, timeout).await;
    finish(transaction, version, timeout).await
}

async fn save_rows(
    connection: &mut MySqlConnection,
    header: &[u8],
    rows: &[(ItemId, Vec<u8>)],
    now_ms: i64,
    timeout: CommandTimeout,
) -> Result<u64, sqlx::Error> {
    let insert = sqlx::query("INSERT INTO catalogue.neighbour_models (created_at_ms, header) VALUES (?, ?)")
        .bind(now_ms)
        .bind(header);
    let version = timeout.run(insert.execute(&mut *connection)).await?.last_insert_id();
    for chunk in rows.chunks(ROWS_PER_INSERT) {
        let values =
            |row: &dyn Fn(&ItemId) -> String| chunk.iter().map(|(item, _)| row(item)).collect::<Vec<_>>().join(",");
        let items = values(&|item| format!("(x'{}')", hex(item)));
        let insert = format!("INSERT IGNORE INTO catalogue.items (item_id) VALUES {items}");
        timeout.run(connection.execute(sqlx::raw_sql(AssertSqlSafe(insert)))).await?;
        let marks = values(&|item| format!("({version},x'{}',?)", hex(item)));
        let insert =
            format!("INSERT INTO catalogue.item_neighbours (model_version, item_id, neighbours) VALUES {marks}");
        let insert = sqlx::query(AssertSqlSafe(insert)).persistent(false);
        let insert = chunk.iter().fold(insert, |insert, (_, blob)| insert.bind(blob.as_slice()));
        timeout.run(insert.execute(&mut *connection)).await?;
    }
    let complete = sqlx::query("UPDATE catalogue.neighbour_models SET complete = TRUE WHERE version = ?").bind(version);
    timeout.run(complete.execute(&mut *connection)).await?;
    let newest = sqlx::query_scalar("SELECT version FROM catalogue.neighbour_models ORDER BY version DESC LIMIT ?")
        .bind(VERSIONS_KEPT);
    let kept: Vec<u64> = timeout.run(newest.fetch_all(&mut *connection)).await?;
    if let Some(oldest_kept) = kept.last() {
        let outdated = sqlx::query("DELETE FROM catalogue.neighbour_models WHERE version < ?").bind(oldest_kept);
        timeout.run(outdated.execute(&mut *connection)).await?;
    }
    Ok(version)
}

/// Models differ in size, so the timeout applies to the wait for the next row.
async fn load(connection: &mut MySqlConnection) -> Result<Option<StoredModel>, sqlx::Error> {
    // One snapshot for both reads: an import may delete this version in between.
    let mut transaction = BETWEEN_ROWS.run(connection.begin()).await?;
    let model = load_rows(&mut transaction).await;
    finish(transaction, model, BETWEEN_ROWS).await
}

async fn load_rows(connection: &mut MySqlConnection) -> Result<Option<StoredModel>, sqlx::Error> {
    let newest = sqlx::query(
        "SELECT version, header FROM catalogue.neighbour_models WHERE complete ORDER BY version DESC LIMIT 1",
    );
    let Some(newest) = BETWEEN_ROWS.run(newest.fetch_optional(&mut *connection)).await? else { return Ok(None) };
    let version: u64 = newest.try_get(0)?;
    let mut neighbours =
        sqlx::query("SELECT item_id, neighbours FROM catalogue.item_neighbours WHERE model_version = ?")
            .bind(version)
            .try_map(|row: MySqlRow| Ok((id_at(&row, 0)?, row.try_get_unchecked(1)?)))
            .fetch(&mut *connection);
    let mut rows = Vec::new();
    while let Some(row) = BETWEEN_ROWS.run(neighbours.try_next()).await? {
        rows.push(row);
    }
    Ok(Some(StoredModel { version, header: newest.try_get(1)?, rows }))
}

fn hex(item: &ItemId) -> String {
    let mut text = String::with_capacity(item.as_str().len() * 2);
    push_hex(&mut text, item.as_str());
    text
}
