//! Artifacts: content-addressed bytes on plain files, served and fetched in pieces that are each verified alone.
//!
//! BLAKE3 is a tree hash, so the hashes of its aligned subtrees of 256 KiB (the *piece hashes*) merge into the
//! artifact's name. A holder sends the list of piece hashes, the fetcher merges it and compares with the name, and
//! from then on any piece from anyone on any stream is verified before it is written. What a partial file holds is
//! found again after a crash by hashing it: no journal to go wrong.

mod tree;

mod disk;

mod store;

mod places;

mod writer;

mod reader;

mod partial;

mod schedule;

mod serve;

mod fetch;

mod lanes;

#[cfg(test)]
mod cut;

pub use disk::{Durability, StoreError};
pub use fetch::{Fetch, FetchError, FetchReport, HolderFailure, Progress};
pub use reader::ArtifactReader;
pub use serve::MayFetch;
pub(crate) use serve::Serving;
pub use store::Store;
pub use tree::PIECE_BYTES;
pub use writer::ArtifactWriter;
