//! The engine of the built-in architectures: linear and softmax regression, perceptrons, small convolutional
//! networks. Plain SGD on the CPU, matrix products by candle.

mod convolution;
mod evaluate;
mod kernels;
mod network;
mod product;
mod serve;
mod train;

pub use network::WORKING_FLOATS_MAX;
pub use serve::QUERY_ROWS_MAX;

use crate::{Engine, EngineError, Layout, Loaded, Report, Table, Targets, TrainOutcome, Work};
use daitn_messages::learning::{Evaluation, ModelSpec, Task};
use network::Network;

/// The engine of the built-in architectures.
#[derive(Debug, Clone, Copy, Default)]
pub struct Builtin;

impl Engine for Builtin {
    fn layout(&self, spec: &ModelSpec) -> Result<Layout, EngineError> {
        Ok(Network::new(spec)?.layout().clone())
    }

    fn initial(&self, spec: &ModelSpec, seed: u64) -> Result<Vec<f32>, EngineError> {
        Ok(Network::new(spec)?.initial(seed))
    }

    fn train(
        &self,
        spec: &ModelSpec,
        parameters: &[f32],
        table: &Table,
        work: &Work<'_>,
        report: Report<'_>,
    ) -> Result<TrainOutcome, EngineError> {
        let network = Network::new(spec)?;
        check_parameters("parameters", parameters, &network)?;
        check_table(spec, table)?;
        train::train(&network, parameters, table, work, report)
    }

    fn evaluate(
        &self,
        spec: &ModelSpec,
        parameters: &[f32],
        table: &Table,
    ) -> Result<Evaluation, EngineError> {
        let network = Network::new(spec)?;
        check_parameters("parameters", parameters, &network)?;
        check_table(spec, table)?;
        evaluate::evaluate(&network, parameters, table)
    }

    fn load(&self, spec: &ModelSpec, parameters: &[f32]) -> Result<Box<dyn Loaded>, EngineError> {
        let network = Network::new(spec)?;
        check_parameters("parameters", parameters, &network)?;
        Ok(Box::new(serve::Model::new(spec.clone(), network, parameters)?))
    }
}

fn check_parameters(what: &'static str, parameters: &[f32], network: &Network) -> Result<(), EngineError> {
    let expected = network.layout().n_elements();
    if parameters.len() != expected {
        return Err(EngineError::ParameterCount {
            what,
            expected,
            found: parameters.len(),
        });
    }
    match parameters.iter().position(|x| !x.is_finite()) {
        Some(position) => Err(EngineError::ParameterNotFinite { what, position }),
        None => Ok(()),
    }
}

fn check_table(spec: &ModelSpec, table: &Table) -> Result<(), EngineError> {
    if table.n_rows() == 0 {
        return Err(EngineError::NoRows);
    }
    if table.n_features() != spec.features.len() {
        let why = format!(
            "{} features instead of {}",
            table.n_features(),
            spec.features.len()
        );
        return Err(EngineError::TableMismatch { why });
    }
    match (&spec.task, table.targets()) {
        (Task::Classification { classes }, Targets::Classes { n_classes, .. })
            if *n_classes == classes.len() =>
        {
            Ok(())
        }
        (Task::Regression, Targets::Values(_)) => Ok(()),
        _ => Err(EngineError::TableMismatch {
            why: "its target is of another task".to_owned(),
        }),
    }
}
