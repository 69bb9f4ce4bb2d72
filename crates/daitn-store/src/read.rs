//! Reading records and leaves. Each one's checksum is verified; the first that does not match ends the reading.

use crate::{
    checksum,
    error::StoreError,
    family::{Family, LEAVES_NEXT, LEAVES_PAGE, LEAVES_TABLE},
    limits::PAGE_RECORDS_MAX,
    store::Store,
};
use daitn_messages::{encoding, leaf::Leaf};
use serde::de::DeserializeOwned;
use sqlx::{Row, sqlite::SqliteRow};

/// A record as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// In which family.
    pub family: Family,
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub value: Vec<u8>,
}

impl Record {
    /// The value, decoded from CBOR.
    ///
    /// # Errors
    /// [`StoreError::Undecodable`].
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        // The store holds what this program wrote, so that a plan's record may be longer than a frame.
        encoding::decode_at_most(&self.value, usize::MAX).map_err(|rejection| StoreError::Undecodable {
            table: self.family.table(),
            key: self.key.clone(),
            cause: rejection.message,
        })
    }
}

/// Past every key: keys are ASCII.
const AFTER_ALL: &str = "\u{10ffff}";

fn sql(error: &sqlx::Error) -> StoreError {
    StoreError::from_sqlx("read", error)
}

impl Store {
    /// One record.
    ///
    /// # Errors
    /// Where it is corrupted or the database cannot be read.
    pub async fn get(&self, family: Family, key: &str) -> Result<Option<Record>, StoreError> {
        let query = sqlx::query(family.select_one()).bind(key.to_owned());
        let row = query.fetch_optional(self.readers()).await.map_err(|e| sql(&e))?;
        row.map(|row| record(family, &row)).transpose()
    }

    /// At most `limit` (and [`PAGE_RECORDS_MAX`]) records whose keys begin with `prefix`, in the order of their keys,
    /// after the key `after`.
    ///
    /// # Errors
    /// Where one is corrupted or the database cannot be read.
    pub async fn page(
        &self,
        family: Family,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        // `key > prefix` would miss a key that is the prefix itself: no family has such keys but by `get`.
        let from = after.unwrap_or(prefix).to_owned();
        let to = format!("{prefix}{AFTER_ALL}");
        let query = sqlx::query(family.select_page())
            .bind(from)
            .bind(to)
            .bind(i64::from(limit.min(PAGE_RECORDS_MAX)));
        let rows = query.fetch_all(self.readers()).await.map_err(|e| sql(&e))?;
        rows.iter().map(|row| record(family, row)).collect()
    }

    /// Every record whose key begins with `prefix`, in the order of their keys. For what is bounded by its family.
    ///
    /// # Errors
    /// Where one is corrupted or the database cannot be read.
    pub async fn load(&self, family: Family, prefix: &str) -> Result<Vec<Record>, StoreError> {
        let mut all: Vec<Record> = Vec::new();
        loop {
            let after = all.last().map(|record| record.key.clone());
            let page = self
                .page(family, prefix, after.as_deref(), PAGE_RECORDS_MAX)
                .await?;
            let is_last = page.len() < PAGE_RECORDS_MAX as usize;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// How many records a family has.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn count(&self, family: Family) -> Result<u64, StoreError> {
        let row = sqlx::query(family.count())
            .fetch_one(self.readers())
            .await
            .map_err(|e| sql(&e))?;
        Ok(row.try_get::<i64, _>(0).map_err(|e| sql(&e))?.cast_unsigned())
    }

    /// How many leaves the log has.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn n_leaves(&self) -> Result<u64, StoreError> {
        let row = sqlx::query(LEAVES_NEXT)
            .fetch_one(self.readers())
            .await
            .map_err(|e| sql(&e))?;
        Ok(row.try_get::<i64, _>(0).map_err(|e| sql(&e))?.cast_unsigned())
    }

    /// At most `limit` (and [`PAGE_RECORDS_MAX`]) leaves from index `from`, with their indices.
    ///
    /// # Errors
    /// Where one is corrupted or the database cannot be read.
    pub async fn leaves(&self, from: u64, limit: u32) -> Result<Vec<(u64, Leaf)>, StoreError> {
        let from = i64::try_from(from).unwrap_or(i64::MAX);
        let query = sqlx::query(LEAVES_PAGE)
            .bind(from)
            .bind(i64::from(limit.min(PAGE_RECORDS_MAX)));
        let rows = query.fetch_all(self.readers()).await.map_err(|e| sql(&e))?;
        let leaves: Vec<(u64, Leaf)> = rows.iter().map(leaf).collect::<Result<_, _>>()?;
        // A log with a gap has lost something.
        match leaves.windows(2).find(|pair| pair[0].0 + 1 != pair[1].0) {
            Some(pair) => Err(StoreError::Corrupted {
                table: LEAVES_TABLE,
                key: (pair[0].0 + 1).to_string(),
            }),
            None => Ok(leaves),
        }
    }
}

fn record(family: Family, row: &SqliteRow) -> Result<Record, StoreError> {
    let key: String = row.try_get(0).map_err(|e| sql(&e))?;
    let value = verified(family.table(), &key, row)?;
    Ok(Record { family, key, value })
}

fn leaf(row: &SqliteRow) -> Result<(u64, Leaf), StoreError> {
    let index = row.try_get::<i64, _>(0).map_err(|e| sql(&e))?.cast_unsigned();
    let key = index.to_string();
    let value = verified(LEAVES_TABLE, &key, row)?;
    let leaf = encoding::decode(&value).map_err(|rejection| StoreError::Undecodable {
        table: LEAVES_TABLE,
        key,
        cause: rejection.message,
    })?;
    Ok((index, leaf))
}

fn verified(table: &'static str, key: &str, row: &SqliteRow) -> Result<Vec<u8>, StoreError> {
    let value: Vec<u8> = row.try_get(1).map_err(|e| sql(&e))?;
    let sum: Vec<u8> = row.try_get(2).map_err(|e| sql(&e))?;
    if sum == checksum::sum(table, key, &value) {
        Ok(value)
    } else {
        Err(StoreError::Corrupted {
            table,
            key: key.to_owned(),
        })
    }
}
