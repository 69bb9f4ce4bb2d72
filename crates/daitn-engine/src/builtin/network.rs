//! The built-in architectures as layers: their tensors, their forward pass and its gradient by hand.
//!
//! By hand, because these three architectures are a chain of two kinds of layer, and recording a graph for every step
//! costs more than the arithmetic of a small model (measured in `benches/engine.rs`). The framework's own automatic
//! gradient is the reference in the tests.

use super::{
    convolution::{Conv, swap_leading},
    kernels,
    product::product,
};
use crate::{EngineError, Layout, TensorSpec, nearest_f32, random::generator};
use candle_core::{Device, Result, Tensor};
use daitn_learning::local::Correction;
use daitn_messages::{
    learning::{Architecture, ModelSpec},
    limits::PARAMETERS_MAX,
};

/// Most numbers of working memory for one pass (128 MiB): a larger batch is computed in parts.
pub const WORKING_FLOATS_MAX: u64 = 32 * 1024 * 1024;
/// Most rows in one part of a forward pass alone: beyond this larger products gain nothing.
const ROWS_MAX: usize = 4096;
/// Purpose of the initial weights' random numbers.
const INITIAL: &str = "daitn 2026 engine: initial weights";

/// An affine layer.
#[derive(Debug, Clone, Copy)]
struct Dense {
    n_in: usize,
    n_out: usize,
}

/// A chain of layers. Parameters are numbered by layer: convolutions first.
#[derive(Debug, Clone)]
pub(super) struct Network {
    convs: Vec<Conv>,
    denses: Vec<Dense>,
    layout: Layout,
    /// Rows computed at a time.
    rows_max: usize,
}

/// Weight and bias of each layer. Also what has their shape: gradients.
pub(super) struct Weights(Vec<(Tensor, Tensor)>);

/// What the forward pass leaves for the backward pass.
pub(super) struct Trace {
    /// For each convolution the unrolled input and the winners of the pooling.
    convs: Vec<(Tensor, Vec<u8>)>,
    /// For each affine layer its input.
    inputs: Vec<Tensor>,
    /// The network's output, row by row.
    pub(super) output: Tensor,
}

impl Network {
    /// The layers of a specification, checked against every bound.
    pub(super) fn new(spec: &ModelSpec) -> std::result::Result<Self, EngineError> {
        spec.validate().map_err(EngineError::Spec)?;
        let mut convs = Vec::new();
        let mut width = spec.features.len();
        let mut hidden: &[u32] = &[];
        match &spec.architecture {
            Architecture::Linear => {}
            Architecture::Mlp { hidden: widths } => hidden = widths,
            Architecture::Cnn {
                height,
                width: columns,
                channels,
                filters,
                hidden: last,
            } => {
                let mut size = (*channels as usize, *height as usize, *columns as usize);
                for n_filters in filters {
                    let filters = *n_filters as usize;
                    convs.push(Conv {
                        channels: size.0,
                        height: size.1,
                        width: size.2,
                        filters,
                    });
                    size = (filters, size.1 / 2, size.2 / 2);
                }
                width = size.0 * size.1 * size.2;
                hidden = std::slice::from_ref(last);
            }
        }
        let mut denses = Vec::new();
        for n_out in hidden.iter().map(|w| *w as usize).chain([spec.task.n_outputs()]) {
            denses.push(Dense { n_in: width, n_out });
            width = n_out;
        }
        let layout = layout(&convs, &denses)?;
        if layout.n_elements() as u64 > PARAMETERS_MAX {
            return Err(EngineError::Layout(crate::LayoutError::TooLarge));
        }
        let floats = floats_per_row(&convs, &denses);
        if floats > WORKING_FLOATS_MAX {
            return Err(EngineError::ExampleTooLarge {
                floats,
                max: WORKING_FLOATS_MAX,
            });
        }
        let rows_max = usize::try_from(WORKING_FLOATS_MAX / floats.max(1))
            .unwrap_or(ROWS_MAX)
            .min(ROWS_MAX);
        Ok(Self {
            convs,
            denses,
            layout,
            rows_max,
        })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How many rows may be computed at a time.
    pub(super) fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Fresh parameters: biases zero, weights uniform with the variance that keeps a ramp's output as spread as its
    /// input (He 2015, arXiv 1502.01852, eq. 10: 2 / fan in); in the last layer, which has no ramp, a sixth of that.
    pub(super) fn initial(&self, seed: u64) -> Vec<f32> {
        let n_layers = self.convs.len() + self.denses.len();
        let mut parameters = Vec::with_capacity(self.layout.n_elements());
        for (index, tensor) in self.layout.tensors().iter().enumerate() {
            let range = self.layout.range(index);
            // Bias and weight take turns; see `layout`.
            if index % 2 == 0 {
                parameters.resize(range.end, 0.0);
                continue;
            }
            let layer = index / 2;
            let variance_3 = if layer + 1 == n_layers { 1.0 } else { 6.0 };
            let bound = (variance_3 / self.fan_in(layer) as f64).sqrt();
            let mut generator = generator(INITIAL, seed, tensor.name.as_bytes());
            parameters.extend(range.map(|_| nearest_f32((2.0 * generator.unit() - 1.0) * bound)));
        }
        parameters
    }

    fn fan_in(&self, layer: usize) -> usize {
        match self.convs.get(layer) {
            Some(conv) => conv.n_taps(),
            None => self.denses[layer - self.convs.len()].n_in,
        }
    }

    /// Tensors that hold a copy of the flat vector.
    pub(super) fn weights(&self, flat: &[f32]) -> Result<Weights> {
        let n_layers = self.convs.len() + self.denses.len();
        let mut layers = Vec::with_capacity(n_layers);
        for layer in 0..n_layers {
            let bias = &flat[self.layout.range(2 * layer)];
            let weight = &flat[self.layout.range(2 * layer + 1)];
            let weight = kernels::matrix(weight.to_vec(), bias.len(), weight.len() / bias.len())?;
            layers.push((weight, Tensor::from_vec(bias.to_vec(), bias.len(), &Device::Cpu)?));
        }
        Ok(Weights(layers))
    }

    /// The output for rows of features, and what the backward pass needs.
    pub(super) fn forward(&self, weights: &Weights, rows: Vec<f32>, n_rows: usize) -> Result<Trace> {
        let (conv_weights, dense_weights) = weights.0.split_at(self.convs.len());
        let mut numbers = rows;
        let mut convs = Vec::with_capacity(self.convs.len());
        if let Some(first) = self.convs.first() {
            numbers = swap_leading(&numbers, n_rows, first.channels);
        }
        for (conv, (weight, bias)) in self.convs.iter().zip(conv_weights) {
            let columns = conv.unroll(&numbers, n_rows);
            let columns = kernels::matrix(columns, conv.n_taps(), n_rows * conv.n_pixels())?;
            let maps = product(weight, &columns)?;
            let (pooled, winners) =
                kernels::read(&maps, |maps| kernels::read(bias, |bias| conv.pool(maps, bias)))??;
            numbers = pooled;
            convs.push((columns, winners));
        }
        if let Some(last) = self.convs.last() {
            numbers = swap_leading(&numbers, last.filters, n_rows);
        }
        let mut current = kernels::matrix(numbers, n_rows, self.denses[0].n_in)?;
        let mut inputs = Vec::with_capacity(self.denses.len());
        for (index, (weight, bias)) in dense_weights.iter().enumerate() {
            let output = product(&current, &weight.t()?)?;
            kernels::add_bias(&output, bias, index + 1 < self.denses.len())?;
            inputs.push(std::mem::replace(&mut current, output));
        }
        Ok(Trace {
            convs,
            inputs,
            output: current,
        })
    }

    /// The gradient of the parameters, given that `trace.output` was turned into the gradient of the output.
    pub(super) fn backward(&self, weights: &Weights, trace: Trace, n_rows: usize) -> Result<Weights> {
        let (conv_weights, dense_weights) = weights.0.split_at(self.convs.len());
        let mut gradients = Vec::with_capacity(weights.0.len());
        let mut upstream = trace.output;
        for (index, dense) in self.denses.iter().enumerate().rev() {
            let input = &trace.inputs[index];
            gradients.push((
                product(&upstream.t()?, input)?,
                kernels::column_sums(&upstream, dense.n_out)?,
            ));
            if index > 0 || !self.convs.is_empty() {
                upstream = product(&upstream, &dense_weights[index].0)?;
            }
            if index > 0 {
                kernels::mask(&upstream, input)?;
            }
        }
        if let Some(last) = self.convs.last() {
            let mut planes = kernels::read(&upstream, |rows| swap_leading(rows, n_rows, last.filters))?;
            for (index, conv) in self.convs.iter().enumerate().rev() {
                let (columns, winners) = &trace.convs[index];
                let maps = conv.unpool(&planes, winners);
                let maps = kernels::matrix(maps, conv.filters, n_rows * conv.n_pixels())?;
                gradients.push((
                    product(&maps, &columns.t()?)?,
                    kernels::row_sums(&maps, conv.filters)?,
                ));
                if index > 0 {
                    let columns = product(&conv_weights[index].0.t()?, &maps)?;
                    planes = kernels::read(&columns, |columns| conv.roll(columns, n_rows))?;
                }
            }
        }
        gradients.reverse();
        Ok(Weights(gradients))
    }
}

impl Weights {
    /// Adds others of the same shape.
    pub(super) fn add(&self, other: &Self) -> Result<()> {
        for ((weight, bias), (other_weight, other_bias)) in self.0.iter().zip(&other.0) {
            kernels::add(weight, other_weight)?;
            kernels::add(bias, other_bias)?;
        }
        Ok(())
    }

    /// One step of plain SGD, the gradient corrected before.
    pub(super) fn step(&self, gradient: &Self, correction: &Correction<'_>, rate: f32) -> Result<()> {
        let mut start = 0;
        for ((weight, bias), (weight_gradient, bias_gradient)) in self.0.iter().zip(&gradient.0) {
            for (tensor, gradient) in [(bias, bias_gradient), (weight, weight_gradient)] {
                if *correction != Correction::None {
                    kernels::edit_with(gradient, tensor, |g, w| correction.add_to(start, w, g))?;
                }
                kernels::edit_with(tensor, gradient, |w, g| {
                    w.iter_mut().zip(g).for_each(|(w, g)| *w -= rate * g);
                })?;
                start += tensor.elem_count();
            }
        }
        Ok(())
    }

    /// The flat vector.
    pub(super) fn flat(&self) -> Result<Vec<f32>> {
        let mut flat = Vec::new();
        for (weight, bias) in &self.0 {
            kernels::read(bias, |numbers| flat.extend_from_slice(numbers))?;
            kernels::read(weight, |numbers| flat.extend_from_slice(numbers))?;
        }
        Ok(flat)
    }
}

/// `00.conv.bias`, `00.conv.weight`, `01.dense.bias` …: the order of names is bias and weight, layer by layer.
fn layout(convs: &[Conv], denses: &[Dense]) -> std::result::Result<Layout, EngineError> {
    let mut tensors = Vec::new();
    for (layer, conv) in convs.iter().enumerate() {
        tensors.push(TensorSpec::new(format!("{layer:02}.conv.bias"), &[conv.filters]));
        tensors.push(TensorSpec::new(
            format!("{layer:02}.conv.weight"),
            &[conv.filters, conv.channels, 3, 3],
        ));
    }
    for (index, dense) in denses.iter().enumerate() {
        let layer = convs.len() + index;
        tensors.push(TensorSpec::new(format!("{layer:02}.dense.bias"), &[dense.n_out]));
        tensors.push(TensorSpec::new(
            format!("{layer:02}.dense.weight"),
            &[dense.n_out, dense.n_in],
        ));
    }
    Ok(Layout::new(tensors)?)
}

/// Working memory of one row: what the forward pass keeps and the backward pass adds.
fn floats_per_row(convs: &[Conv], denses: &[Dense]) -> u64 {
    let convs = convs
        .iter()
        .map(|c| 2 * c.n_pixels() as u64 * (c.n_taps() + c.filters) as u64)
        .sum::<u64>();
    let denses = denses.iter().map(|d| 2 * (d.n_in + d.n_out) as u64).sum::<u64>();
    convs + denses
}
