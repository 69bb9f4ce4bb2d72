//! Piece hashes: the chaining values of BLAKE3's aligned subtrees of [`PIECE_BYTES`] (section 2.1 of the BLAKE3
//! paper), which merge into the hash of the whole. 32 bytes for each 256 KiB: 8 MiB for the largest artifact.

use blake3::{
    Hasher,
    hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};
use daitn_messages::{ids::ArtifactId, limits::ARTIFACT_BYTES_MAX};

/// Bytes in a piece, except for the last. A power of two times BLAKE3's chunk, or pieces would not be subtrees. Small
/// enough that a slow link verifies something every second, large enough that its hash list is 1/8192 of the whole.
pub const PIECE_BYTES: u64 = 256 * 1024;
/// [`PIECE_BYTES`] as a length in memory.
pub(crate) const PIECE_LEN: usize = 256 * 1024;
/// Length of one piece hash.
const HASH_LEN: usize = 32;

/// The piece hashes of one artifact, verified against its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    bytes: u64,
    hashes: Vec<ChainingValue>,
}

impl Tree {
    /// How many pieces so many bytes have. Nothing at all is one empty piece.
    pub(crate) fn n_pieces_of(bytes: u64) -> u64 {
        bytes.div_ceil(PIECE_BYTES).max(1)
    }

    /// The tree of an artifact of one piece: its name is the piece's hash.
    pub(crate) fn single(bytes: u64) -> Self {
        Self {
            bytes,
            hashes: Vec::new(),
        }
    }

    /// From the hashes as stored or received, if they merge into the name.
    pub(crate) fn from_bytes(artifact: ArtifactId, bytes: u64, hashes: &[u8]) -> Option<Self> {
        let n_pieces = Self::n_pieces_of(bytes);
        if bytes > ARTIFACT_BYTES_MAX || hashes.len() as u64 != Self::encoded_len(bytes) {
            return None;
        }
        if n_pieces == 1 {
            return Some(Self::single(bytes));
        }
        let (hashes, _) = hashes.as_chunks::<HASH_LEN>();
        (root(hashes) == artifact).then(|| Self {
            bytes,
            hashes: hashes.to_vec(),
        })
    }

    /// Length of [`Self::to_bytes`]: nothing for a single piece.
    pub(crate) fn encoded_len(bytes: u64) -> u64 {
        match Self::n_pieces_of(bytes) {
            1 => 0,
            n_pieces => n_pieces * HASH_LEN as u64,
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.hashes.concat()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn n_pieces(&self) -> u64 {
        Self::n_pieces_of(self.bytes)
    }

    /// Length of one piece.
    pub(crate) fn piece_len(&self, piece: u64) -> usize {
        let rest = self.bytes.saturating_sub(piece * PIECE_BYTES).min(PIECE_BYTES);
        usize::try_from(rest).expect("a piece fits in memory")
    }

    /// Whether these are the bytes of this piece.
    pub(crate) fn holds(&self, artifact: ArtifactId, piece: u64, bytes: &[u8]) -> bool {
        if piece >= self.n_pieces() || bytes.len() != self.piece_len(piece) {
            return false;
        }
        match usize::try_from(piece)
            .ok()
            .and_then(|piece| self.hashes.get(piece))
        {
            None => ArtifactId::of(bytes) == artifact,
            Some(hash) => piece_hash(piece, bytes) == *hash,
        }
    }
}

/// Makes a [`Tree`] and the name from bytes as they come.
pub(crate) struct TreeBuilder {
    hasher: Hasher,
    in_piece: usize,
    bytes: u64,
    /// The first piece's hasher stays open until there is a second, since it may turn out to be the whole.
    hashes: Vec<ChainingValue>,
}

impl TreeBuilder {
    pub(crate) fn new() -> Self {
        Self {
            hasher: Hasher::new(),
            in_piece: 0,
            bytes: 0,
            hashes: Vec::new(),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.in_piece == PIECE_LEN {
                self.close_piece();
            }
            let n_bytes = bytes.len().min(PIECE_LEN - self.in_piece);
            self.hasher.update(&bytes[..n_bytes]);
            self.in_piece += n_bytes;
            self.bytes += n_bytes as u64;
            bytes = &bytes[n_bytes..];
        }
    }

    pub(crate) fn finish(mut self) -> (ArtifactId, Tree) {
        if self.hashes.is_empty() {
            return (
                ArtifactId(*self.hasher.finalize().as_bytes()),
                Tree::single(self.bytes),
            );
        }
        self.close_piece();
        (
            root(&self.hashes),
            Tree {
                bytes: self.bytes,
                hashes: self.hashes,
            },
        )
    }

    fn close_piece(&mut self) {
        self.hashes.push(self.hasher.finalize_non_root());
        self.hasher = Hasher::new();
        self.hasher
            .set_input_offset(self.hashes.len() as u64 * PIECE_BYTES);
        self.in_piece = 0;
    }
}

fn piece_hash(piece: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(piece * PIECE_BYTES);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// Merges at least two piece hashes into the name.
fn root(hashes: &[ChainingValue]) -> ArtifactId {
    let (left, right) = hashes.split_at(left_len(hashes.len()));
    ArtifactId(*merge_subtrees_root(&merged(left), &merged(right), Mode::Hash).as_bytes())
}

/// As deep as the logarithm of the number of pieces: at most 18.
fn merged(hashes: &[ChainingValue]) -> ChainingValue {
    match hashes {
        [one] => *one,
        _ => {
            let (left, right) = hashes.split_at(left_len(hashes.len()));
            merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash)
        }
    }
}

/// The left subtree is the largest power of two that leaves something for the right.
fn left_len(n_hashes: usize) -> usize {
    1 << (n_hashes - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(len: usize) -> Vec<u8> {
        (0..len)
            .map(|i| u8::try_from((i * 31 + i / 251) % 256).unwrap())
            .collect()
    }

    /// The name must be what BLAKE3's own function says, whatever the length.
    #[test]
    fn names_agree_with_blake3() {
        let lens = [
            0,
            1,
            1024,
            1025,
            PIECE_LEN - 1,
            PIECE_LEN,
            PIECE_LEN + 1,
            2 * PIECE_LEN,
            5 * PIECE_LEN + 7,
        ];
        for len in lens.into_iter().chain((3..20).map(|n| n * PIECE_LEN - 1000)) {
            let bytes = bytes_of(len);
            let mut builder = TreeBuilder::new();
            for part in bytes.chunks(100_003) {
                builder.push(part);
            }
            let (id, tree) = builder.finish();
            assert_eq!(id.0, *blake3::hash(&bytes).as_bytes(), "{len} bytes");
            assert_eq!(
                Tree::from_bytes(id, len as u64, &tree.to_bytes()),
                Some(tree.clone())
            );
            for (piece, part) in (0u64..).zip(bytes.chunks(PIECE_LEN)) {
                assert!(tree.holds(id, piece, part), "piece {piece} of {len} bytes");
            }
        }
    }

    #[test]
    fn a_changed_bit_anywhere_is_seen() {
        let bytes = bytes_of(3 * PIECE_LEN + 5);
        let mut builder = TreeBuilder::new();
        builder.push(&bytes);
        let (id, tree) = builder.finish();
        let hashes = tree.to_bytes();
        for bit in 0..hashes.len() * 8 {
            let mut changed = hashes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Tree::from_bytes(id, bytes.len() as u64, &changed), None);
        }
        let mut piece = bytes[PIECE_LEN..2 * PIECE_LEN].to_vec();
        for at in [0, 1023, 1024, PIECE_LEN - 1] {
            piece[at] ^= 1;
            assert!(!tree.holds(id, 1, &piece));
            piece[at] ^= 1;
        }
        assert!(tree.holds(id, 1, &piece));
        assert!(!tree.holds(id, 2, &piece), "a piece holds in its own place only");
        assert!(!tree.holds(id, 4, &[]), "there is no such piece");
    }

    #[test]
    fn a_wrong_length_is_seen() {
        let bytes = bytes_of(2 * PIECE_LEN);
        let mut builder = TreeBuilder::new();
        builder.push(&bytes);
        let (id, tree) = builder.finish();
        for len in [
            0,
            1,
            bytes.len() as u64 + 1,
            PIECE_BYTES,
            u64::MAX,
            ARTIFACT_BYTES_MAX + 1,
        ] {
            assert_eq!(Tree::from_bytes(id, len, &tree.to_bytes()), None, "{len}");
        }
        // Same number of pieces, other length: the hashes merge, the last piece cannot hold.
        let shorter = Tree::from_bytes(id, bytes.len() as u64 - 1, &tree.to_bytes()).unwrap();
        assert!(!shorter.holds(id, 1, &bytes[PIECE_LEN..2 * PIECE_LEN - 1]));
        assert!(!shorter.holds(id, 1, &bytes[PIECE_LEN..]));
    }
}
