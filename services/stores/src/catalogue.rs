//! The unsharded schema: items, and the item-neighbour model, versioned.

use contract::ItemId;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, Row, mysql::MySqlRow};

use crate::{
    bulk::push_hex,
    mysql::{Store, id_at},
    pool::StoreError,
};

/// A complete model as it lies in the catalogue; its encoding belongs to the crate `model`.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredModel {
    /// Ascending with every import, never reused.
    pub version: u64,
    pub header: Vec<u8>,
    pub rows: Vec<(ItemId, Vec<u8>)>,
}

const ROWS_PER_INSERT: usize = 500;
/// Versions kept: replicas that are starting may still be loading the previous one.
const VERSIONS_KEPT: u32 = 2;

impl Store {
    /// Stores a model and makes it the newest, in one transaction; returns its version.
    ///
    /// # Errors
    /// The catalogue's server failed; nothing is changed then.
    pub async fn save_model(&self, header: &[u8], rows: &[(ItemId, Vec<u8>)], now_ms: i64) -> Result<u64, StoreError> {
        let mut lease = self.inner().catalogue.checkout(None).await?;
        let result = save(lease.connection().await?, header, rows, now_ms).await;
        lease.write(result)
    }

    /// The newest complete model, if there is any.
    ///
    /// # Errors
    /// The catalogue's server failed.
    pub async fn latest_model(&self) -> Result<Option<StoredModel>, StoreError> {
        let mut lease = self.inner().catalogue.checkout(None).await?;
        loop {
            let result = load(lease.connection().await?).await;
            if let Some(model) = lease.read(result)? {
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
) -> Result<u64, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let version = sqlx::query("INSERT INTO catalogue.neighbour_models (created_at_ms, header) VALUES (?, ?)")
        .bind(now_ms)
        .bind(header)
        .execute(&mut *transaction)
        .await?
        .last_insert_id();
    for chunk in rows.chunks(ROWS_PER_INSERT) {
        let values =
            |row: &dyn Fn(&ItemId) -> String| chunk.iter().map(|(item, _)| row(item)).collect::<Vec<_>>().join(",");
        let items = values(&|item| format!("(x'{}')", hex(item)));
        let insert = format!("INSERT IGNORE INTO catalogue.items (item_id) VALUES {items}");
        transaction.execute(sqlx::raw_sql(AssertSqlSafe(insert))).await?;
        let marks = values(&|item| format!("({version},x'{}',?)", hex(item)));
        let insert =
            format!("INSERT INTO catalogue.item_neighbours (model_version, item_id, neighbours) VALUES {marks}");
        let insert = sqlx::query(AssertSqlSafe(insert)).persistent(false);
        let insert = chunk.iter().fold(insert, |insert, (_, blob)| insert.bind(blob.as_slice()));
        insert.execute(&mut *transaction).await?;
    }
    sqlx::query("UPDATE catalogue.neighbour_models SET complete = TRUE WHERE version = ?")
        .bind(version)
        .execute(&mut *transaction)
        .await?;
    let kept: Vec<u64> =
        sqlx::query_scalar("SELECT version FROM catalogue.neighbour_models ORDER BY version DESC LIMIT ?")
            .bind(VERSIONS_KEPT)
            .fetch_all(&mut *transaction)
            .await?;
    if let Some(oldest_kept) = kept.last() {
        sqlx::query("DELETE FROM catalogue.neighbour_models WHERE version < ?")
            .bind(oldest_kept)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await.map(|()| version)
}

async fn load(connection: &mut MySqlConnection) -> Result<Option<StoredModel>, sqlx::Error> {
    // One snapshot for both reads: an import may delete this version in between.
    let mut transaction = connection.begin().await?;
    let newest = sqlx::query(
        "SELECT version, header FROM catalogue.neighbour_models WHERE complete ORDER BY version DESC LIMIT 1",
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(newest) = newest else { return Ok(None) };
    let version: u64 = newest.try_get(0)?;
    let rows = sqlx::query("SELECT item_id, neighbours FROM catalogue.item_neighbours WHERE model_version = ?")
        .bind(version)
        .try_map(|row: MySqlRow| Ok((id_at(&row, 0)?, row.try_get_unchecked(1)?)))
        .fetch_all(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(Some(StoredModel { version, header: newest.try_get(1)?, rows }))
}

fn hex(item: &ItemId) -> String {
    let mut text = String::with_capacity(item.as_str().len() * 2);
    push_hex(&mut text, item.as_str());
    text
}
