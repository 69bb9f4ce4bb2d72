//! Whether a verification unit judges a model.

use super::Verifier;
use crate::shared::{Shared, file_bytes};
use daitn_messages::{
    learning::{Metric, Task},
    order::VerifyOrder,
    rejection::{Code, Rejection},
};

/// The rule under which a unit works: orders of the pinned center, which have passed its signature check.
const RULE: &str = "order-of-own-center";

impl Verifier {
    /// The rules that permit the order.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admit(&self, shared: &Shared, verify: &VerifyOrder) -> Result<Vec<String>, Rejection> {
        self.columns.fit(&verify.spec)?;
        let classifies = matches!(verify.metric, Metric::Accuracy | Metric::MacroF1);
        if classifies != matches!(verify.spec.task, Task::Classification { .. }) || !verify.target.is_finite()
        {
            return Err(Rejection::malformed(
                "metric",
                "it does not belong to the model's task, or its target is no number",
            ));
        }
        let expected = file_bytes(&shared.engine.layout(&verify.spec)?);
        if verify.weights.bytes != expected {
            let message = format!(
                "weights of {} bytes, where the model's take {expected}",
                verify.weights.bytes
            );
            return Err(Rejection::new(Code::UpdateRefused, message));
        }
        Ok(vec![RULE.to_owned()])
    }
}
