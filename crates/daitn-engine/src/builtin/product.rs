//! The product of two matrices: the kernel that candle's own product calls, without what candle does before.
//!
//! For every product candle asks the machine how many cores it has, by reading `/proc/cpuinfo`: 25 µs on 2 cores and
//! more on more, for products that take 1 µs. A site's round on the digits takes six times as long that way, an answer
//! forty times. (Setting `RAYON_NUM_THREADS` would avoid it too, but a library cannot set its process's environment.)

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use gemm::Parallelism;

/// Multiplications from which on threads are worth their start: the kernel's own bound, so that smaller products never
/// start a pool of threads. The number of threads never changes a result: no sum is cut between threads.
const THREADS_FROM: usize = 48 * 48 * 256;

/// `left · right`; either may be a transposed view.
pub(super) fn product(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    left.apply_op2_no_bwd(right, &Product)
}

struct Product;

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(
        &self,
        left: &CpuStorage,
        left_layout: &Layout,
        right: &CpuStorage,
        right_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let left = Matrix::new(left, left_layout)?;
        let right = Matrix::new(right, right_layout)?;
        if left.n_columns != right.n_rows {
            bail!("{} columns meet {} rows", left.n_columns, right.n_rows);
        }
        let numbers = multiply(left, right);
        Ok((CpuStorage::F32(numbers), (left.n_rows, right.n_columns).into()))
    }
}

/// A view of numbers as a matrix, all of whose elements lie in `numbers`.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    numbers: &'a [f32],
    n_rows: usize,
    n_columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (n_rows, n_columns) = layout.shape().dims2()?;
        let (CpuStorage::F32(numbers), [row_stride, column_stride]) = (storage, layout.stride()) else {
            bail!("expected a matrix of f32")
        };
        let Some(numbers) = numbers.get(layout.start_offset()..) else {
            bail!("a view beyond its storage")
        };
        let matrix = Self {
            numbers,
            n_rows,
            n_columns,
            row_stride: *row_stride,
            column_stride: *column_stride,
        };
        if matrix.end().is_none_or(|end| end > numbers.len()) {
            bail!("a view beyond its storage");
        }
        Ok(matrix)
    }

    /// One past the last element; `None` if there are none or the number overflows.
    fn end(&self) -> Option<usize> {
        let last_row = self.n_rows.checked_sub(1)?.checked_mul(self.row_stride)?;
        let last_column = self.n_columns.checked_sub(1)?.checked_mul(self.column_stride)?;
        last_row.checked_add(last_column)?.checked_add(1)
    }
}

#[expect(
    unsafe_code,
    reason = "the kernel takes pointers; candle's safe wrapper of it is what this avoids"
)]
fn multiply(left: Matrix<'_>, right: Matrix<'_>) -> Vec<f32> {
    let (m, n, k) = (left.n_rows, right.n_columns, left.n_columns);
    let mut out = vec![0.0_f32; m * n];
    let work = m.saturating_mul(n).saturating_mul(k);
    let parallelism = if work < THREADS_FROM {
        Parallelism::None
    } else {
        Parallelism::Rayon(0)
    };
    // SAFETY: `out` holds m·n numbers and is written at row·n + column. `left` and `right` are not empty and end within
    // their slices (`Matrix::new` refuses anything else), and `left` has as many columns as `right` has rows (checked
    // by the caller), so every element that is read exists. `out` is new, so nothing aliases it. Strides and sizes are
    // those of live slices, so they fit an isize.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n.cast_signed(),
            false,
            left.numbers.as_ptr(),
            left.column_stride.cast_signed(),
            left.row_stride.cast_signed(),
            right.numbers.as_ptr(),
            right.column_stride.cast_signed(),
            right.row_stride.cast_signed(),
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn matrix(n_rows: usize, n_columns: usize) -> Tensor {
        // Small integers: sums are exact, whatever their order.
        let numbers: Vec<f32> = (0..n_rows * n_columns)
            .map(|i| ((i * 31) % 17) as f32 - 8.0)
            .collect();
        Tensor::from_vec(numbers, (n_rows, n_columns), &Device::Cpu).unwrap()
    }

    #[test]
    fn products_are_those_of_candle() {
        for (m, k, n) in [
            (1, 1, 1),
            (1, 64, 10),
            (32, 64, 32),
            (3, 5, 7),
            (130, 70, 90),
            (512, 64, 512),
        ] {
            let (a, b) = (matrix(m, k), matrix(k, n));
            let (at, bt) = (matrix(k, m).t().unwrap(), matrix(n, k).t().unwrap());
            for (a, b) in [(&a, &b), (&at, &b), (&a, &bt), (&at, &bt)] {
                let ours = product(a, b).unwrap().to_vec2::<f32>().unwrap();
                assert_eq!(
                    ours,
                    a.matmul(b).unwrap().to_vec2::<f32>().unwrap(),
                    "{m} {k} {n}"
                );
            }
            let view = matrix(m + 2, k).narrow(0, 2, m).unwrap();
            assert_eq!(
                product(&view, &b).unwrap().to_vec2::<f32>().unwrap(),
                view.matmul(&b).unwrap().to_vec2::<f32>().unwrap()
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(product(&matrix(2, 3), &matrix(2, 3)).is_err());
        assert!(
            product(
                &matrix(2, 3),
                &Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap()
            )
            .is_err()
        );
        let integers = Tensor::zeros((3, 3), candle_core::DType::U32, &Device::Cpu).unwrap();
        assert!(product(&matrix(2, 3), &integers).is_err());
        let empty = Tensor::zeros((0, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(product(&empty, &matrix(3, 3)).is_err());
    }
}
