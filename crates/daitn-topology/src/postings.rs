//! A sorted list of entry numbers: which entries have a property.

/// Sorted, without repetition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Postings(Vec<u32>);

impl Postings {
    pub(crate) fn insert(&mut self, number: u32) {
        if self.0.last().is_none_or(|last| *last < number) {
            self.0.push(number);
        } else if let Err(place) = self.0.binary_search(&number) {
            self.0.insert(place, number);
        }
    }

    pub(crate) fn remove(&mut self, number: u32) {
        if let Ok(place) = self.0.binary_search(&number) {
            self.0.remove(place);
        }
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        self.0.binary_search(&number).is_ok()
    }

    pub(crate) fn as_slice(&self) -> &[u32] {
        &self.0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A set of small numbers, one bit each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn of(numbers: impl IntoIterator<Item = u32>) -> Self {
        let mut bits = Self::default();
        for number in numbers {
            let word = number as usize / 64;
            if word >= bits.0.len() {
                bits.0.resize(word + 1, 0);
            }
            bits.0[word] |= 1 << (number % 64);
        }
        bits
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        self.0
            .get(number as usize / 64)
            .is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}
