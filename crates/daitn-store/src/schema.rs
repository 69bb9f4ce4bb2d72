//! Creating the tables and checking whose file it is. A migration is a step from one schema version to the next.

use crate::{
    error::StoreError,
    family::{Family, LEAVES_CREATE},
};
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use std::path::Path;

/// The schema version that this program writes. Raised with each entry in [`migrate`].
pub(crate) const SCHEMA_VERSION: i64 = 1;
/// "DAIT" in SQLite's application id field, so that `file` and we recognise the file.
const APPLICATION_ID: i64 = 0x4441_4954;

/// Makes a new file ours, or checks that it is and brings it to [`SCHEMA_VERSION`].
pub(crate) async fn prepare(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let sql = |error: sqlx::Error| StoreError::from_sqlx("open", &error);
    let application = number(connection, "PRAGMA application_id").await?;
    let version = number(connection, "PRAGMA user_version").await?;
    let n_tables = number(connection, "SELECT COUNT(*) FROM sqlite_master").await?;
    let is_new = application == 0 && version == 0 && n_tables == 0;
    if !is_new && application != APPLICATION_ID {
        return Err(StoreError::Foreign {
            path: path.to_owned(),
        });
    }
    if version > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema {
            found: version,
            supported: SCHEMA_VERSION,
        });
    }
    execute(connection, "BEGIN IMMEDIATE").await.map_err(sql)?;
    for from in version..SCHEMA_VERSION {
        migrate(connection, from).await.map_err(sql)?;
    }
    let stamp = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}");
    sqlx::raw_sql(AssertSqlSafe(stamp))
        .execute(&mut *connection)
        .await
        .map_err(sql)?;
    execute(connection, "COMMIT").await.map_err(sql)
}

/// The step from version `from` to the next.
async fn migrate(connection: &mut SqliteConnection, from: i64) -> Result<(), sqlx::Error> {
    if from == 0 {
        for family in Family::ALL {
            execute(connection, family.create()).await?;
        }
        execute(connection, LEAVES_CREATE).await?;
    }
    Ok(())
}

/// One number that a statement yields.
pub(crate) async fn number(
    connection: &mut SqliteConnection,
    statement: &'static str,
) -> Result<i64, StoreError> {
    let sql = |error: sqlx::Error| StoreError::from_sqlx("open", &error);
    let row = sqlx::query(statement).fetch_one(connection).await.map_err(sql)?;
    row.try_get::<i64, _>(0).map_err(sql)
}

pub(crate) async fn execute(
    connection: &mut SqliteConnection,
    statement: &'static str,
) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(connection).await.map(|_| ())
}
