//! Migrations of all schemas.

use contract::ShardId;
use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, MySqlConnection, migrate::Migrator};

use crate::{
    command_timeout::{CommandTimeout, WITHOUT_SERVER_LIMIT},
    config::StoreConfig,
    dialer::connect_options,
    error::StoreError,
};

static SHARD: Migrator = sqlx::migrate!("../../migrations/shards");
static CATALOGUE: Migrator = sqlx::migrate!("../../migrations/catalogue");

const CATALOGUE_SCHEMA: &str = "catalogue";

/// How long a migration waits for another one.
const LOCK_TIMEOUT: Duration = Duration::from_secs(120);

/// Applies missing migrations. Idempotent; concurrent calls run one after the other.
///
/// # Errors
/// A server cannot be reached, or a migration failed or was changed after it was applied.
pub async fn migrate(config: &StoreConfig) -> Result<(), StoreError> {
    let servers = config.instances.iter().map(|instance| async {
        let schemas = ShardId::all().filter(|shard| instance.shards.contains(&(shard.index() as u8)));
        let schemas: Vec<String> = schemas.map(ShardId::schema).collect();
        migrate_server(config, &instance.address, &schemas, &SHARD).await
    });
    futures::future::try_join_all(servers).await.map_err(StoreError::from)?;
    migrate_server(config, &config.catalogue, &[CATALOGUE_SCHEMA.to_owned()], &CATALOGUE)
        .await
        .map_err(StoreError::from)
}

async fn migrate_server(
    config: &StoreConfig,
    address: &str,
    schemas: &[String],
    migrator: &Migrator,
) -> Result<(), sqlx::Error> {
    let Some(options) = connect_options(config, address) else {
        return Err(sqlx::Error::Configuration(format!("'{address}' is neither host:port nor unix:/path").into()));
    };
    let connect_timeout = CommandTimeout::new(Duration::from_millis(config.connect_timeout_ms), None);
    let mut connection = connect_timeout.run(options.connect()).await?;
    // sqlx locks with `GET_LOCK(…, -1)` and ignores the result. MariaDB takes -1 for "do not wait".
    let lock = sqlx::query_scalar("SELECT GET_LOCK('recommendation-testbed-migrate', ?)").bind(LOCK_TIMEOUT.as_secs());
    let locked: Option<i64> = CommandTimeout::new(LOCK_TIMEOUT, None).run(lock.fetch_one(&mut connection)).await?;
    if locked != Some(1) {
        let reason = format!("another migration has held the lock for {LOCK_TIMEOUT:?}");
        return Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, reason)));
    }
    for schema in schemas {
        let create = AssertSqlSafe(format!("CREATE DATABASE IF NOT EXISTS {schema}"));
        WITHOUT_SERVER_LIMIT.run(connection.execute(create)).await?;
        // One connection per schema: prepared statements refer to the schema in which they were prepared.
        let mut schema_connection = connect_timeout.run(options.clone().database(schema).connect()).await?;
        WITHOUT_SERVER_LIMIT.run(run(migrator, &mut schema_connection)).await?;
        schema_connection.close().await?;
    }
    // Closing the connection releases the lock.
    connection.close().await
}

async fn run(migrator: &Migrator, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    let mut migrator = Migrator::with_migrations(migrator.iter().cloned().collect());
    migrator.set_locking(false);
    migrator.run_direct(None, connection, false).await.map_err(|error| sqlx::Error::Migrate(Box::new(error)))
}
