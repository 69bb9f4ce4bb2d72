//! Element-wise arithmetic on the framework's tensors, in place and in a fixed order. Matrix products are left to
//! the framework; these loops are memory-bound, and as framework operators each would cost an allocation and a pass.

use candle_core::{CpuStorage, Device, InplaceOp1, InplaceOp2, Layout, Result, Storage, Tensor, bail};
use std::cell::Cell;

/// A matrix that takes over these numbers, row by row.
pub(super) fn matrix(numbers: Vec<f32>, n_rows: usize, n_columns: usize) -> Result<Tensor> {
    Tensor::from_vec(numbers, (n_rows, n_columns), &Device::Cpu)
}

struct Edit<F>(F);

impl<F: Fn(&mut [f32])> InplaceOp1 for Edit<F> {
    fn name(&self) -> &'static str {
        "edit"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        (self.0)(numbers_mut(storage, layout)?);
        Ok(())
    }
}

impl<F: Fn(&mut [f32], &[f32])> InplaceOp2 for Edit<F> {
    fn name(&self) -> &'static str {
        "edit with"
    }

    fn cpu_fwd(
        &self,
        storage: &mut CpuStorage,
        layout: &Layout,
        other: &CpuStorage,
        other_layout: &Layout,
    ) -> Result<()> {
        (self.0)(numbers_mut(storage, layout)?, numbers(other, other_layout)?);
        Ok(())
    }
}

fn numbers_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(&mut numbers[start..end]),
        _ => bail!("expected contiguous f32"),
    }
}

fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(&numbers[start..end]),
        _ => bail!("expected contiguous f32"),
    }
}

/// Changes a tensor's numbers in place.
pub(super) fn edit(tensor: &Tensor, change: impl Fn(&mut [f32])) -> Result<()> {
    tensor.inplace_op1(&Edit(change))
}

/// Changes a tensor's numbers in place, looking at those of another.
pub(super) fn edit_with(tensor: &Tensor, other: &Tensor, change: impl Fn(&mut [f32], &[f32])) -> Result<()> {
    tensor.inplace_op2(other, &Edit(change))
}

/// Looks at a tensor's numbers without copying them.
pub(super) fn read<T>(tensor: &Tensor, look: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(look(numbers(storage, layout)?)),
        _ => bail!("expected a tensor on the CPU"),
    }
}

/// Adds one number for each column, then the ramp where it is asked for.
pub(super) fn add_bias(rows: &Tensor, bias: &Tensor, ramp: bool) -> Result<()> {
    edit_with(rows, bias, |rows, bias| {
        for row in rows.chunks_exact_mut(bias.len()) {
            if ramp {
                row.iter_mut().zip(bias).for_each(|(x, b)| *x = (*x + b).max(0.0));
            } else {
                row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
            }
        }
    })
}

/// Lets a gradient through only where the ramp had let the value through.
pub(super) fn mask(gradient: &Tensor, activation: &Tensor) -> Result<()> {
    edit_with(gradient, activation, |gradient, activation| {
        gradient.iter_mut().zip(activation).for_each(|(g, a)| {
            if *a <= 0.0 {
                *g = 0.0;
            }
        });
    })
}

/// Adds a tensor to another.
pub(super) fn add(total: &Tensor, other: &Tensor) -> Result<()> {
    edit_with(total, other, |total, other| {
        total.iter_mut().zip(other).for_each(|(t, x)| *t += x);
    })
}

/// The sum of each column.
pub(super) fn column_sums(rows: &Tensor, n_columns: usize) -> Result<Tensor> {
    let sums = read(rows, |numbers| {
        let mut sums = vec![0.0_f32; n_columns];
        for row in numbers.chunks_exact(n_columns) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        sums
    })?;
    Tensor::from_vec(sums, n_columns, &Device::Cpu)
}

/// The sum of each row.
pub(super) fn row_sums(rows: &Tensor, n_rows: usize) -> Result<Tensor> {
    let sums = read(rows, |numbers| {
        let n_columns = numbers.len() / n_rows;
        numbers
            .chunks_exact(n_columns)
            .map(|row| row.iter().sum::<f32>())
            .collect::<Vec<_>>()
    })?;
    Tensor::from_vec(sums, n_rows, &Device::Cpu)
}

/// Turns one row of logits into probabilities and returns the logarithm of the normaliser.
pub(super) fn softmax(row: &mut [f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0_f32;
    for x in row.iter_mut() {
        *x = (*x - max).exp();
        sum += *x;
    }
    for x in row.iter_mut() {
        *x /= sum;
    }
    max + sum.ln()
}

/// Turns logits into the gradient of the mean cross-entropy over `n_batch` rows; returns the sum of the losses.
pub(super) fn cross_entropy(
    logits: &Tensor,
    labels: &[u32],
    n_classes: usize,
    n_batch: usize,
) -> Result<f64> {
    let loss = Cell::new(0.0_f64);
    edit(logits, |logits| {
        for (row, label) in logits.chunks_exact_mut(n_classes).zip(labels) {
            let truth = row[*label as usize];
            let normaliser = softmax(row);
            loss.set(loss.get() + f64::from(normaliser - truth));
            row[*label as usize] -= 1.0;
            row.iter_mut().for_each(|g| *g /= n_batch as f32);
        }
    })?;
    Ok(loss.get())
}

/// Turns predictions into the gradient of the mean squared error over `n_batch` rows; returns the sum of squares.
pub(super) fn squared_error(predictions: &Tensor, values: &[f32], n_batch: usize) -> Result<f64> {
    let loss = Cell::new(0.0_f64);
    edit(predictions, |predictions| {
        for (prediction, value) in predictions.iter_mut().zip(values) {
            let error = *prediction - value;
            loss.set(loss.get() + f64::from(error) * f64::from(error));
            *prediction = 2.0 * error / n_batch as f32;
        }
    })?;
    Ok(loss.get())
}
