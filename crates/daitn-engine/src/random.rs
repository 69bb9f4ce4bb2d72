//! Seeds for separate purposes out of one seed of a job. The framework's own generator cannot be seeded on the CPU, so
//! it is never asked.

use daitn_learning::random::SplitMix64;

/// The generator of `purpose` (a constant of this crate: changing it changes every model), `seed` and `index`.
pub(crate) fn generator(purpose: &'static str, seed: u64, index: &[u8]) -> SplitMix64 {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    hasher.update(&seed.to_le_bytes());
    hasher.update(index);
    let mut word = [0; 8];
    word.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    SplitMix64::new(u64::from_le_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generators_differ_by_purpose_seed_and_index() {
        let first = |purpose, seed, index: &[u8]| generator(purpose, seed, index).next_u64();
        let base = first("a", 1, b"x");
        assert_eq!(base, first("a", 1, b"x"));
        assert!(
            [first("b", 1, b"x"), first("a", 2, b"x"), first("a", 1, b"y")]
                .iter()
                .all(|d| *d != base)
        );
    }
}
