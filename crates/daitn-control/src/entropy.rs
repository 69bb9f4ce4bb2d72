//! Randomness as a value: a seed that the caller gives and a counter, so that the core stays pure and a run can be
//! repeated. In production the seed comes from the operating system once; BLAKE3 in its keyed mode makes the rest.

/// A stream of random bytes. Two of the same seed give the same bytes.
#[derive(Clone)]
pub struct Entropy {
    seed: [u8; 32],
    counter: u64,
}

impl Entropy {
    /// From a seed: 32 random bytes in production, a number in a simulation.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    /// The next bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(&self.counter.to_le_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        self.counter += 1;
        bytes
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the seed: keys are made from it.
        write!(f, "Entropy({} drawn)", self.counter)
    }
}
