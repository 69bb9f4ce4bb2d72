//! The families of records: one table each, declared here and nowhere else.

macro_rules! families {
    ($($(#[$doc:meta])* $variant:ident = $table:literal;)*) => {
        /// A family of records: one table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Family {
            $($(#[$doc])* $variant,)*
        }

        impl Family {
            /// Every family, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The table's name.
            #[must_use]
            pub fn table(self) -> &'static str {
                match self { $(Self::$variant => $table),* }
            }
            pub(crate) fn create(self) -> &'static str {
                match self { $(Self::$variant => concat!(
                    "CREATE TABLE IF NOT EXISTS ", $table,
                    " (key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL, sum BLOB NOT NULL) STRICT"
                )),* }
            }
            pub(crate) fn put(self) -> &'static str {
                match self { $(Self::$variant => concat!(
                    "INSERT INTO ", $table, " (key, value, sum) VALUES (?1, ?2, ?3)",
                    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, sum = excluded.sum"
                )),* }
            }
            pub(crate) fn delete(self) -> &'static str {
                match self { $(Self::$variant => concat!("DELETE FROM ", $table, " WHERE key = ?1")),* }
            }
            pub(crate) fn select_one(self) -> &'static str {
                match self { $(Self::$variant => concat!(
                    "SELECT key, value, sum FROM ", $table, " WHERE key = ?1"
                )),* }
            }
            pub(crate) fn select_page(self) -> &'static str {
                match self { $(Self::$variant => concat!(
                    "SELECT key, value, sum FROM ", $table,
                    " WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3"
                )),* }
            }
            pub(crate) fn count(self) -> &'static str {
                match self { $(Self::$variant => concat!("SELECT COUNT(*) FROM ", $table)),* }
            }
        }
    };
}

families! {
    /// Single facts: the domain's policy, counters.
    Meta = "meta";
    /// Join tokens, by id. Secrets as hashes.
    Tokens = "tokens";
    /// API keys, by id. Secrets as hashes.
    Keys = "keys";
    /// Enrolled nodes, by key.
    Nodes = "nodes";
    /// Newest signed descriptor of each entity, by entity.
    Descriptors = "descriptors";
    /// Registered models, by organisation, name and version.
    Models = "models";
    /// Plans, by id.
    Plans = "plans";
    /// Training jobs without their plan and cycles, by id.
    Jobs = "jobs";
    /// Parts of a job that are written apart from it, since they are many: each site's answer, each closed cycle.
    JobParts = "job_parts";
    /// Deployments, by id.
    Deployments = "deployments";
    /// Decision records, by id.
    Decisions = "decisions";
    /// Work orders that are not settled, by id.
    Orders = "orders";
    /// Receipts that were taken, as hashes, by order and hash.
    Receipts = "receipts";
    /// Idempotency keys, by organisation and key.
    Idempotency = "idempotency";
}

pub(crate) const LEAVES_CREATE: &str = "CREATE TABLE IF NOT EXISTS leaves (ix INTEGER PRIMARY KEY NOT NULL, value BLOB NOT NULL, sum BLOB NOT NULL) STRICT";
pub(crate) const LEAVES_PUT: &str = "INSERT INTO leaves (ix, value, sum) VALUES (?1, ?2, ?3)";
pub(crate) const LEAVES_PAGE: &str = "SELECT ix, value, sum FROM leaves WHERE ix >= ?1 ORDER BY ix LIMIT ?2";
pub(crate) const LEAVES_NEXT: &str = "SELECT COALESCE(MAX(ix) + 1, 0) FROM leaves";
/// The table of leaves, as errors name it.
pub(crate) const LEAVES_TABLE: &str = "leaves";
