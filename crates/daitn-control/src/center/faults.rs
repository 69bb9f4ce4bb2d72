//! Receipts at which the core panicked. A node sends one again until it is taken, so that a receipt at which the core
//! panics every time would hold up everything behind it for ever: the second time it is refused for good.

use daitn_messages::{
    ids::ArtifactId,
    rejection::{Code, Rejection},
};
use std::collections::BTreeSet;

/// Receipts that are remembered; beyond it all are forgotten, and each is tried once more.
const RECEIPTS_MAX: usize = 1_024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    receipts: BTreeSet<ArtifactId>,
}

impl Faults {
    /// What is answered to an input at which the core panicked; `receipt` is the hash of the one that came with it.
    pub(crate) fn refusal(&mut self, receipt: Option<ArtifactId>) -> Rejection {
        let fault = Rejection::new(Code::Internal, "a fault in the control center");
        let Some(receipt) = receipt else { return fault };
        if self.receipts.len() >= RECEIPTS_MAX {
            self.receipts.clear();
        }
        // The core was made anew since: what it holds may have been the cause, and the receipt is worth another try.
        if self.receipts.insert(receipt) {
            return fault;
        }
        Rejection::malformed(
            "receipt",
            "the control center fails at it every time; its log holds the cause",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_tried_twice_and_then_refused_for_good() {
        let mut faults = Faults::default();
        let (one, other) = (ArtifactId([1; 32]), ArtifactId([2; 32]));
        for (receipt, code) in [
            (Some(one), Code::Internal),
            (Some(other), Code::Internal),
            (Some(one), Code::Malformed),
            (Some(one), Code::Malformed),
            (None, Code::Internal),
            (None, Code::Internal),
        ] {
            assert_eq!(faults.refusal(receipt).code, code);
        }
        // The memory is bounded: a flood of others lets one be tried again.
        for n in 0..RECEIPTS_MAX as u64 {
            faults.refusal(Some(ArtifactId::of(&n.to_le_bytes())));
        }
        assert_eq!(faults.refusal(Some(one)).code, Code::Internal);
        assert!(faults.receipts.len() <= RECEIPTS_MAX);
    }
}
