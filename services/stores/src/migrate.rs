//! Brings all schemas up to date.

use contract::ShardId;
use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, MySqlConnection, migrate::Migrator};

use crate::{
    config::StoreConfig,
    dialer::connect_options,
    limit::{Limit, UNLIMITED_BY_SERVER},
    pool::StoreError,
};

static SHARD: Migrator = sqlx::migrate!("../../migrations/shards");
static CATALOGUE: Migrator = sqlx::migrate!("../../migrations/catalogue");

pub(crate) const CATALOGUE_SCHEMA: &str = "catalogue";

/// How long one migrator waits for another.
const LOCK: Duration = Duration::from_secs(120);

/// Creates what is missing; run again it changes nothing; several at once take turns.
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
    let connect = Limit::new(Duration::from_millis(config.connect_timeout_ms), None);
    let mut connection = connect.of(options.connect()).await?;
    // sqlx's own lock is `GET_LOCK(…, -1)`, whose answer it does not read, and MariaDB takes -1 as "do not wait".
    let lock = sqlx::query_scalar("SELECT GET_LOCK('recommendation-testbed-migrate', ?)").bind(LOCK.as_secs());
    let locked: Option<i64> = Limit::new(LOCK, None).of(lock.fetch_one(&mut connection)).await?;
    if locked != Some(1) {
        let reason = format!("another migration has held the lock for {LOCK:?}");
        return Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, reason)));
    }
    for schema in schemas {
        let create = AssertSqlSafe(format!("CREATE DATABASE IF NOT EXISTS {schema}"));
        UNLIMITED_BY_SERVER.of(connection.execute(create)).await?;
        // A connection for each: sqlx's prepared statements would go on meaning the schema they were prepared in.
        let mut of_schema = connect.of(options.clone().database(schema).connect()).await?;
        UNLIMITED_BY_SERVER.of(run(migrator, &mut of_schema)).await?;
        of_schema.close().await?;
    }
    // Closing the connection also lets go of the lock.
    connection.close().await
}

async fn run(migrator: &Migrator, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    let mut migrator = Migrator::with_migrations(migrator.iter().cloned().collect());
    migrator.set_locking(false);
    migrator.run_direct(None, connection, false).await.map_err(|error| sqlx::Error::Migrate(Box::new(error)))
}
