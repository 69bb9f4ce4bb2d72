//! The verification unit: evaluates models on a hold-out that never leaves the node, one at a time, for orders of the
//! pinned center only, and signs what it found.

mod act;

mod admit;

mod descriptor;

mod options;

pub use options::VerifierOptions;

use crate::{
    columns::{Columns, DataFile, Declared},
    works::Works,
};
use daitn_messages::rejection::Rejection;
use std::sync::Arc;

/// A verification unit that is open.
#[derive(Debug)]
pub(crate) struct Verifier {
    file: Arc<DataFile>,
    columns: Columns,
    /// Held while a model is evaluated.
    turn: tokio::sync::Mutex<()>,
    judging: Works,
}

impl Verifier {
    /// Opens the hold-out. Blocks.
    ///
    /// # Errors
    /// What makes it unusable.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "terminals are opened from options of their own"
    )]
    pub(crate) fn open(options: VerifierOptions) -> Result<Self, Rejection> {
        let declared = Declared {
            features: &options.features,
            target: &options.target,
            task: options.task,
            classes: &options.classes,
        };
        let (file, columns) = DataFile::inspect(&options.path, declared)?;
        Ok(Self {
            file: Arc::new(file),
            columns,
            turn: tokio::sync::Mutex::default(),
            judging: Works::default(),
        })
    }
}
