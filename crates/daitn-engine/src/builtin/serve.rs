//! A model in memory. Its tensors are made once and only read afterwards.

use super::{
    kernels,
    network::{Network, Weights},
};
use crate::{EngineError, Loaded, Outputs};
use daitn_messages::learning::{ModelSpec, Task};

/// Most rows in one query: beyond this a caller should send several.
pub const QUERY_ROWS_MAX: usize = 65_536;

pub(super) struct Model {
    spec: ModelSpec,
    network: Network,
    weights: Weights,
}

impl Model {
    pub(super) fn new(spec: ModelSpec, network: Network, parameters: &[f32]) -> Result<Self, EngineError> {
        let weights = network.weights(parameters)?;
        Ok(Self {
            spec,
            network,
            weights,
        })
    }

    fn check(&self, inputs: &[f32]) -> Result<(), EngineError> {
        let n_features = self.spec.features.len();
        let refuse = |why| Err(EngineError::Inputs { why });
        if inputs.is_empty() || !inputs.len().is_multiple_of(n_features) {
            return refuse(format!("{} numbers are no rows of {n_features}", inputs.len()));
        }
        if inputs.len() / n_features > QUERY_ROWS_MAX {
            return refuse(format!(
                "{} rows, over the bound of {QUERY_ROWS_MAX}",
                inputs.len() / n_features
            ));
        }
        match inputs
            .iter()
            .position(|x| !((x - self.spec.offset) * self.spec.scale).is_finite())
        {
            Some(position) => refuse(format!(
                "row {}, feature `{}` is not a finite number",
                position / n_features,
                self.spec.features[position % n_features]
            )),
            None => Ok(()),
        }
    }
}

impl Loaded for Model {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn infer(&self, inputs: &[f32]) -> Result<Outputs, EngineError> {
        self.check(inputs)?;
        let n_features = self.spec.features.len();
        let n_outputs = self.spec.task.n_outputs();
        let mut values = Vec::with_capacity(inputs.len() / n_features * n_outputs);
        for part in inputs.chunks(self.network.rows_max() * n_features) {
            let rows = part
                .iter()
                .map(|x| (x - self.spec.offset) * self.spec.scale)
                .collect();
            let trace = self
                .network
                .forward(&self.weights, rows, part.len() / n_features)?;
            kernels::read(&trace.output, |output| values.extend_from_slice(output))?;
        }
        let probabilities = matches!(self.spec.task, Task::Classification { .. }).then(|| {
            let mut probabilities = values.clone();
            for row in probabilities.chunks_exact_mut(n_outputs) {
                kernels::softmax(row);
            }
            probabilities
        });
        Ok(Outputs {
            n_outputs,
            values,
            probabilities,
        })
    }
}
