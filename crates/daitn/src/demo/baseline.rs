//! What one organisation with all the data in one place would have got: trained in this process, with the same engine,
//! the same model and as many passes over the data. Only the demo can do that; the network never sees the data.

use super::digits::{Dealt, Digits, N_CLASSES, N_FEATURES};
use crate::failure::Failure;
use daitn_engine::{Engine, LocalRule, Table, Targets, Work, builtin::Builtin};
use daitn_messages::{
    learning::{LocalTraining, Metric},
    request::TrainingRequest,
};
use std::ops::ControlFlow;

/// The accuracy on the hold-outs of all verification units.
pub(crate) fn centralised(digits: &Digits, dealt: &Dealt, request: &TrainingRequest) -> Result<f64, Failure> {
    let failed = |what: String| Failure::internal(format!("the centralised baseline: {what}"));
    let spec = request.model_spec();
    let together: Vec<usize> = dealt.sites.concat();
    let hold_out: Vec<usize> = dealt.hold_outs.concat();
    let training = table(digits, &together, request)?;
    let local = &request.training.local;
    let passes = LocalTraining {
        epochs: local.epochs.saturating_mul(request.training.rounds),
        ..*local
    };
    let initial = Builtin
        .initial(&spec, local.seed)
        .map_err(|error| failed(error.to_string()))?;
    let work = Work {
        training: passes,
        seed: local.seed,
        rule: LocalRule::Plain,
    };
    let trained = Builtin
        .train(&spec, &initial, &training, &work, &mut |_| {
            ControlFlow::Continue(())
        })
        .map_err(|error| failed(error.to_string()))?;
    let found = Builtin
        .evaluate(&spec, &trained.parameters, &table(digits, &hold_out, request)?)
        .map_err(|error| failed(error.to_string()))?;
    found
        .metric(Metric::Accuracy)
        .ok_or_else(|| failed("no accuracy".to_owned()))
}

fn table(digits: &Digits, records: &[usize], request: &TrainingRequest) -> Result<Table, Failure> {
    let features = records
        .iter()
        .flat_map(|record| digits.image(*record))
        .map(|pixel| (pixel - request.offset) * request.scale)
        .collect();
    let labels = records.iter().map(|record| digits.label(*record)).collect();
    Table::new(
        N_FEATURES,
        features,
        Targets::Classes {
            labels,
            n_classes: N_CLASSES,
        },
    )
    .map_err(|error| Failure::internal(error.to_string()))
}
