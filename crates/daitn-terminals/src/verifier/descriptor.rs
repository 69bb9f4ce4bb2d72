//! What a verification unit tells others.

use super::Verifier;
use daitn_messages::descriptor::VerifierBody;

impl Verifier {
    /// The body of the descriptor.
    #[must_use]
    pub(crate) fn describe(&self) -> VerifierBody {
        VerifierBody {
            features: self.columns.features.clone(),
            target: self.columns.target.clone(),
            task: self.columns.task.clone(),
            records: self.columns.records(),
        }
    }
}
