//! The checksum of a record: 128 bits of BLAKE3 over table, key and value, so that a record that was changed, or moved
//! to another key or table, is noticed when it is read.

/// Length of a checksum, bytes: against accidents, not against an adversary who can write the file.
pub(crate) const SUM_BYTES: usize = 16;

pub(crate) fn sum(table: &str, key: &str, value: &[u8]) -> [u8; SUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    // Lengths first, so that no two records run together to the same bytes.
    for part in [table.as_bytes(), key.as_bytes(), value] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut short = [0; SUM_BYTES];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..SUM_BYTES]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_covers_table_key_value_and_where_each_ends() {
        let base = sum("jobs", "a", b"x");
        for other in [
            sum("plans", "a", b"x"),
            sum("jobs", "b", b"x"),
            sum("jobs", "a", b"y"),
            sum("jobs", "ax", b""),
            sum("jobs", "", b"ax"),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base, sum("jobs", "a", b"x"));
    }
}
