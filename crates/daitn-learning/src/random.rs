//! A small generator with a seed, for splits and initial weights: the same numbers for ever, whatever the versions of
//! our dependencies. Not for keys.

/// SplitMix64 (Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195): one word of state, any seed is good.
#[derive(Debug, Clone)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// A generator from its seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0..1, both ends excluded, so that its logarithm exists.
    pub fn unit(&mut self) -> f64 {
        ((self.next_u64() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// Uniform in `0..n` without bias: draws that fall into the last, incomplete copy of the range are thrown away.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        let n_surplus = (u64::MAX % n + 1) % n;
        loop {
            let draw = self.next_u64();
            if draw <= u64::MAX - n_surplus {
                return usize::try_from(draw % n).expect("below a usize");
            }
        }
    }

    /// Standard normal, by Marsaglia's polar method.
    pub fn normal(&mut self) -> f64 {
        loop {
            let (u, v) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                return u * (-2.0 * s.ln() / s).sqrt();
            }
        }
    }

    /// The natural logarithm of a draw from Gamma(shape, 1), by Marsaglia and Tsang (2000, doi 10.1145/358407.358414).
    /// A logarithm, because a small shape gives draws that no `f64` can hold.
    ///
    /// # Panics
    /// If the shape is not positive and finite.
    pub fn ln_gamma_draw(&mut self, shape: f64) -> f64 {
        assert!(
            shape.is_finite() && shape > 0.0,
            "a gamma distribution has a positive shape"
        );
        if shape < 1.0 {
            // Gamma(a) is Gamma(a + 1) times a uniform draw to the power of 1/a.
            return self.ln_gamma_draw(shape + 1.0) + self.unit().ln() / shape;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let root = 1.0 + c * x;
            let v = root * root * root;
            if v > 0.0 && self.unit().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d.ln() + v.ln();
            }
        }
    }

    /// Uniform among all orders (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
