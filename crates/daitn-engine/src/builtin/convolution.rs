//! 3×3 convolution (stride 1, padding 1) as one matrix product, and 2×2 max pooling.
//!
//! Images lie plane by plane, `[channel, image, y, x]`: then a row of the unrolled matrix is a shifted copy of a
//! plane, and one product serves the whole batch. (The framework's own convolution on the CPU is several times
//! slower at these sizes.)

/// Size of a convolution's input and its number of output channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conv {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) filters: usize,
}

/// Where a pooled value came from when the ramp had let none through.
const DEAD: u8 = u8::MAX;

impl Conv {
    /// Pixels of one input plane.
    pub(super) fn n_pixels(&self) -> usize {
        self.height * self.width
    }

    /// Rows of the unrolled matrix: channel, then y, then x of the kernel.
    pub(super) fn n_taps(&self) -> usize {
        9 * self.channels
    }

    /// Pixels of one plane after pooling; an odd last row or column is left out.
    pub(super) fn n_pooled(&self) -> usize {
        (self.height / 2) * (self.width / 2)
    }

    /// `[channels, n, height, width]` unrolled to `[channels * 9, n * height * width]`.
    pub(super) fn unroll(&self, planes: &[f32], n: usize) -> Vec<f32> {
        let row_len = n * self.n_pixels();
        let mut columns = vec![0.0_f32; self.n_taps() * row_len];
        for (tap, out) in columns.chunks_exact_mut(row_len).enumerate() {
            let plane = &planes[(tap / 9) * row_len..][..row_len];
            self.each_line(tap, n, |line, source, target, len| {
                out[line + target..][..len].copy_from_slice(&plane[source..][..len]);
            });
        }
        columns
    }

    /// The transpose of [`Conv::unroll`]: every use of a pixel adds to its gradient.
    pub(super) fn roll(&self, columns: &[f32], n: usize) -> Vec<f32> {
        let row_len = n * self.n_pixels();
        let mut planes = vec![0.0_f32; self.channels * row_len];
        for (tap, column) in columns.chunks_exact(row_len).enumerate() {
            let plane = &mut planes[(tap / 9) * row_len..][..row_len];
            self.each_line(tap, n, |line, source, target, len| {
                let uses = &column[line + target..][..len];
                plane[source..][..len]
                    .iter_mut()
                    .zip(uses)
                    .for_each(|(p, c)| *p += c);
            });
        }
        planes
    }

    /// Calls `visit(start of the line, first source, first target in the line, length)` for each line of each image
    /// that the kernel's tap reaches; what lies beyond the border is zero and is not visited.
    fn each_line(&self, tap: usize, n: usize, mut visit: impl FnMut(usize, usize, usize, usize)) {
        let (down, right) = ((tap % 9) / 3, tap % 3);
        let len = if right == 1 { self.width } else { self.width - 1 };
        let (from, to) = (usize::from(right == 2), usize::from(right == 0));
        if len == 0 {
            return;
        }
        for image in 0..n {
            for y in 0..self.height {
                // The kernel's middle row is 1: source line is y + down - 1.
                let Some(source_y) = (y + down).checked_sub(1).filter(|s| *s < self.height) else {
                    continue;
                };
                let line = image * self.n_pixels() + y * self.width;
                let source = image * self.n_pixels() + source_y * self.width + from;
                visit(line, source, to, len);
            }
        }
    }

    /// Largest of each 2×2 square of `[filters, n, height, width]`, plus the bias, through the ramp; and which of the
    /// four it was. The first wins a tie.
    pub(super) fn pool(&self, maps: &[f32], bias: &[f32]) -> (Vec<f32>, Vec<u8>) {
        let n_planes = maps.len() / self.n_pixels();
        let n_images = n_planes / self.filters;
        let mut pooled = Vec::with_capacity(n_planes * self.n_pooled());
        let mut winners = Vec::with_capacity(n_planes * self.n_pooled());
        for (index, plane) in maps.chunks_exact(self.n_pixels()).enumerate() {
            let bias = bias[index / n_images];
            for y in 0..self.height / 2 {
                let upper = &plane[2 * y * self.width..][..self.width];
                let lower = &plane[(2 * y + 1) * self.width..][..self.width];
                for (up, low) in upper.chunks_exact(2).zip(lower.chunks_exact(2)) {
                    let (mut best, mut winner) = (up[0], 0_u8);
                    for (value, position) in [(up[1], 1), (low[0], 2), (low[1], 3)] {
                        if value > best {
                            (best, winner) = (value, position);
                        }
                    }
                    let value = best + bias;
                    // A NaN stays one, so that divergence is seen and not hidden by the ramp.
                    pooled.push(if value <= 0.0 { 0.0 } else { value });
                    winners.push(if value <= 0.0 { DEAD } else { winner });
                }
            }
        }
        (pooled, winners)
    }

    /// The transpose of [`Conv::pool`]: each gradient goes to the winner.
    pub(super) fn unpool(&self, gradient: &[f32], winners: &[u8]) -> Vec<f32> {
        let n_planes = gradient.len() / self.n_pooled();
        let mut maps = vec![0.0_f32; n_planes * self.n_pixels()];
        let half = self.width / 2;
        for (index, plane) in maps.chunks_exact_mut(self.n_pixels()).enumerate() {
            let first = index * self.n_pooled();
            for position in 0..self.n_pooled() {
                let winner = winners[first + position];
                if winner != DEAD {
                    let (y, x) = (2 * (position / half), 2 * (position % half));
                    let (down, right) = (usize::from(winner / 2), usize::from(winner % 2));
                    plane[(y + down) * self.width + x + right] = gradient[first + position];
                }
            }
        }
        maps
    }
}

/// `[a, b, len]` reordered to `[b, a, len]`.
pub(super) fn swap_leading(numbers: &[f32], a: usize, b: usize) -> Vec<f32> {
    let len = numbers.len() / (a * b);
    let mut swapped = Vec::with_capacity(numbers.len());
    for second in 0..b {
        for first in 0..a {
            swapped.extend_from_slice(&numbers[(first * b + second) * len..][..len]);
        }
    }
    swapped
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONV: Conv = Conv {
        channels: 2,
        height: 5,
        width: 3,
        filters: 4,
    };

    fn ramp(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37) % 101) as f32 - 50.0).collect()
    }

    /// The definition: a sum over taps, with zero outside.
    fn direct(conv: Conv, planes: &[f32], weight: &[f32], n: usize) -> Vec<f32> {
        let at = |c: usize, i: usize, y: isize, x: isize| {
            let inside = (0..conv.height as isize).contains(&y) && (0..conv.width as isize).contains(&x);
            let line = (c * n + i) * conv.n_pixels();
            if inside {
                planes[line + y as usize * conv.width + x as usize]
            } else {
                0.0
            }
        };
        let mut out = Vec::new();
        for f in 0..conv.filters {
            for (i, y, x) in itertools(n, conv.height, conv.width) {
                let mut sum = 0.0;
                for (c, ky, kx) in itertools(conv.channels, 3, 3) {
                    let w = weight[((f * conv.channels + c) * 3 + ky) * 3 + kx];
                    sum += w * at(c, i, y as isize + ky as isize - 1, x as isize + kx as isize - 1);
                }
                out.push(sum);
            }
        }
        out
    }

    fn itertools(a: usize, b: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..a * b * c).map(move |i| (i / (b * c), i / c % b, i % c))
    }

    #[test]
    fn unrolled_product_is_the_convolution() {
        let n = 3;
        let planes = ramp(CONV.channels * n * CONV.n_pixels());
        let weight = ramp(CONV.filters * CONV.n_taps());
        let columns = CONV.unroll(&planes, n);
        let row_len = n * CONV.n_pixels();
        let mut product = Vec::new();
        for f in 0..CONV.filters {
            for p in 0..row_len {
                product.push(
                    (0..CONV.n_taps())
                        .map(|t| weight[f * CONV.n_taps() + t] * columns[t * row_len + p])
                        .sum::<f32>(),
                );
            }
        }
        assert_eq!(product, direct(CONV, &planes, &weight, n));
    }

    #[test]
    fn roll_is_the_transpose_of_unroll() {
        // <unroll(x), y> = <x, roll(y)> for all x and y; the numbers are small integers, so sums are exact.
        let n = 2;
        let x = ramp(CONV.channels * n * CONV.n_pixels());
        let y: Vec<f32> = ramp(CONV.n_taps() * n * CONV.n_pixels())
            .iter()
            .rev()
            .copied()
            .collect();
        let dot = |a: &[f32], b: &[f32]| {
            a.iter()
                .zip(b)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum::<f64>()
        };
        assert_eq!(dot(&CONV.unroll(&x, n), &y), dot(&x, &CONV.roll(&y, n)));
    }

    #[test]
    fn pooling_takes_the_largest_and_gives_its_gradient_back() {
        let conv = Conv {
            channels: 1,
            height: 3,
            width: 4,
            filters: 1,
        };
        // The odd last row is left out; the second square is dead with this bias.
        let maps = [1.0, 5.0, -9.0, -3.0, 2.0, 5.0, -8.0, -4.0, 99.0, 99.0, 99.0, 99.0];
        let (pooled, winners) = conv.pool(&maps, &[1.0]);
        assert_eq!(pooled, [6.0, 0.0]);
        assert_eq!(winners, [1, DEAD]);
        let gradient = conv.unpool(&[7.0, 8.0], &winners);
        assert_eq!(
            gradient,
            [0.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        );
    }

    #[test]
    fn images_one_pixel_wide_have_only_their_middle_taps() {
        let conv = Conv {
            channels: 1,
            height: 2,
            width: 1,
            filters: 1,
        };
        let columns = conv.unroll(&[3.0, 4.0], 1);
        assert_eq!(
            columns.chunks(2).map(<[f32]>::to_vec).collect::<Vec<_>>()[1],
            [0.0, 3.0]
        );
        assert_eq!(&columns[8..10], [3.0, 4.0]);
        assert_eq!(&columns[14..16], [4.0, 0.0]);
        assert!(columns[..2].iter().all(|x| *x == 0.0));
    }
}
