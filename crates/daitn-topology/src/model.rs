//! What a declared architecture costs to move and to run, counted from its shape.

use daitn_messages::learning::{Architecture, ModelSpec};

/// Training an example costs three times answering it: forward, gradient by the inputs, gradient by the weights, each
/// with the same multiply-adds.
pub const TRAIN_FACTOR: u64 = 3;
/// What a safetensors file has beside the numbers: a header of a few names and shapes.
const HEADER_BYTES: u64 = 1_024;

/// What one model costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelCost {
    /// Numbers in it.
    pub n_parameters: u64,
    /// Multiply-adds to answer one example.
    pub forward: u64,
    /// Its file, bytes.
    pub bytes: u64,
}

impl ModelCost {
    /// Counts. Saturates where an architecture is larger than any machine.
    #[must_use]
    pub fn of(spec: &ModelSpec) -> Self {
        let mut count = Count::default();
        let inputs = spec.features.len() as u64;
        let outputs = spec.task.n_outputs() as u64;
        let last = match &spec.architecture {
            Architecture::Linear => inputs,
            Architecture::Mlp { hidden } => hidden
                .iter()
                .fold(inputs, |width, next| count.affine(width, u64::from(*next))),
            Architecture::Cnn {
                height,
                width,
                channels,
                filters,
                hidden,
            } => {
                let (mut height, mut width, mut channels) =
                    (u64::from(*height), u64::from(*width), u64::from(*channels));
                for filters in filters {
                    let filters = u64::from(*filters);
                    count.convolution(channels, filters, height.saturating_mul(width));
                    (height, width, channels) = (height / 2, width / 2, filters);
                }
                let flat = height.saturating_mul(width).saturating_mul(channels);
                count.affine(flat, u64::from(*hidden))
            }
        };
        count.affine(last, outputs);
        Self {
            n_parameters: count.n_parameters,
            forward: count.forward,
            bytes: count.n_parameters.saturating_mul(4).saturating_add(HEADER_BYTES),
        }
    }

    /// Multiply-adds to train on this many records once.
    #[must_use]
    pub fn train(&self, records: u64) -> f64 {
        self.forward as f64 * TRAIN_FACTOR as f64 * records as f64
    }
}

#[derive(Default)]
struct Count {
    n_parameters: u64,
    forward: u64,
}

impl Count {
    fn affine(&mut self, inputs: u64, outputs: u64) -> u64 {
        let weights = inputs.saturating_mul(outputs);
        self.add(weights, outputs, weights);
        outputs
    }

    /// 3×3, stride 1, padding 1.
    fn convolution(&mut self, channels: u64, filters: u64, pixels: u64) {
        let weights = channels.saturating_mul(filters).saturating_mul(9);
        self.add(weights, filters, weights.saturating_mul(pixels));
    }

    fn add(&mut self, weights: u64, biases: u64, multiply_adds: u64) {
        self.n_parameters = self.n_parameters.saturating_add(weights).saturating_add(biases);
        self.forward = self.forward.saturating_add(multiply_adds);
    }
}
