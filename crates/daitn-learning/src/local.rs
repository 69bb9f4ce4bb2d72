//! What a strategy adds to a site's own training: arithmetic on flat vectors, called by whoever runs the engine.

use crate::nearest_f32;

/// What is added to each gradient before the site's step, by strategy. All vectors are flat and of the model's length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Correction<'a> {
    /// Nothing: FedAvg, the server-side strategies, and itineraries.
    None,
    /// FedProx (arXiv 1812.06127, eq. 2): `mu * (w - x)`, which keeps the site near where it started.
    Proximal {
        /// Weight of the term; 0.001 to 1 is usual.
        mu: f32,
        /// The global parameters `x` that the site received, frozen while it trains.
        global: &'a [f32],
    },
    /// SCAFFOLD (arXiv 1910.06378, alg. 1): `c - c_k`, which takes out the site's own drift. Plain SGD only.
    Controlled {
        /// The server's control variate `c`.
        control: &'a [f32],
        /// The site's own `c_k`; zeros before its first round.
        site_control: &'a [f32],
    },
}

impl Correction<'_> {
    /// Adds the correction to `gradient`, taken at `weights`. Both are the part of the flat vectors that begins at
    /// `offset`, so that an engine may go tensor by tensor.
    ///
    /// # Panics
    /// If the part lies outside the correction's own vectors, or the two differ in length: the model is not theirs.
    pub fn add_to(&self, offset: usize, weights: &[f32], gradient: &mut [f32]) {
        assert_eq!(weights.len(), gradient.len(), "one gradient for each weight");
        let part = offset..offset + gradient.len();
        match *self {
            Self::None => {}
            Self::Proximal { mu, global } => {
                for ((gradient, weight), global) in gradient.iter_mut().zip(weights).zip(&global[part]) {
                    *gradient += mu * (weight - global);
                }
            }
            Self::Controlled {
                control,
                site_control,
            } => {
                let controls = control[part.clone()].iter().zip(&site_control[part]);
                for (gradient, (control, site_control)) in gradient.iter_mut().zip(controls) {
                    *gradient += control - site_control;
                }
            }
        }
    }
}

/// What a site's SCAFFOLD round leaves: the first stays at the site, the second goes to the aggregator.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteControl {
    /// The site's next control variate `c_k+`.
    pub next: Vec<f32>,
    /// `c_k+ - c_k`.
    pub delta: Vec<f32>,
}

/// What a site did in one SCAFFOLD round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaffoldRound<'a> {
    /// The server's control variate `c` of this round.
    pub control: &'a [f32],
    /// The site's `c_k` before.
    pub site_control: &'a [f32],
    /// The parameters `x` that it received.
    pub received: &'a [f32],
    /// Its parameters `y` after training.
    pub trained: &'a [f32],
    /// Steps that it took, `M`: its own count, as sites differ in examples.
    pub n_steps: u64,
    /// Rate of its plain SGD.
    pub learning_rate: f32,
}

impl ScaffoldRound<'_> {
    /// Option II of the paper: `c_k+ = c_k - c + (x - y) / (M * rate)`. A site that took no step keeps its variate.
    ///
    /// # Panics
    /// If the vectors differ in length, or the rate is not positive: the engine has refused both before.
    #[must_use]
    pub fn site_control(&self) -> SiteControl {
        let n = self.site_control.len();
        let same_length = [self.control, self.received, self.trained]
            .iter()
            .all(|vector| vector.len() == n);
        assert!(same_length, "the vectors are of one model");
        assert!(self.learning_rate > 0.0, "the rate of a job is positive");
        if self.n_steps == 0 {
            return SiteControl {
                next: self.site_control.to_vec(),
                delta: vec![0.0; n],
            };
        }
        let travelled = self.n_steps as f64 * f64::from(self.learning_rate);
        let mut site = SiteControl {
            next: Vec::with_capacity(n),
            delta: Vec::with_capacity(n),
        };
        for i in 0..n {
            let pull = (f64::from(self.received[i]) - f64::from(self.trained[i])) / travelled;
            let next = nearest_f32(f64::from(self.site_control[i]) - f64::from(self.control[i]) + pull);
            site.next.push(next);
            // Of the rounded value: the server's variate stays the mean of what the sites hold.
            site.delta.push(next - self.site_control[i]);
        }
        site
    }
}
