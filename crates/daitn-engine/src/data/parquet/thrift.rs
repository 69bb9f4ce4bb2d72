//! Just enough of Thrift's compact protocol to look at sizes before the Parquet library acts on them.
//!
//! Source: <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>.

use super::super::DataError;

/// Most elements of any list, set or map: row groups, columns, key-value pairs.
const ELEMENTS_MAX: u64 = 100_000;
/// Deepest nesting of structures; Parquet's own need 7.
const DEPTH_MAX: u32 = 16;

/// Types of the protocol that are named here.
pub(super) const I32: u8 = 5;
pub(super) const I64: u8 = 6;
pub(super) const LIST: u8 = 9;
pub(super) const STRUCT: u8 = 12;

/// A place in encoded bytes.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

/// The bytes end too early, or mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// They end too early.
    End,
    /// What they would mean is not allowed.
    Meaning(&'static str),
}

impl From<Broken> for DataError {
    fn from(broken: Broken) -> Self {
        let why = match broken {
            Broken::End => "its metadata ends too early",
            Broken::Meaning(why) => why,
        };
        Self::Structure { why: why.to_owned() }
    }
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn byte(&mut self) -> Result<u8, Broken> {
        let byte = *self.bytes.get(self.position).ok_or(Broken::End)?;
        self.position += 1;
        Ok(byte)
    }

    fn advance(&mut self, n: u64) -> Result<(), Broken> {
        let n = usize::try_from(n).map_err(|_| Broken::End)?;
        let end = self
            .position
            .checked_add(n)
            .filter(|end| *end <= self.bytes.len())
            .ok_or(Broken::End)?;
        self.position = end;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Broken::Meaning("a number in its metadata has more than 64 bits"))
    }

    /// A signed number.
    pub(super) fn integer(&mut self) -> Result<i64, Broken> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// The type and the number of the next field, given the number of the last; `None` at the end of the structure.
    pub(super) fn field(&mut self, last: i64) -> Result<Option<(u8, i64)>, Broken> {
        let byte = self.byte()?;
        if byte & 0x0f == 0 {
            return Ok(None);
        }
        let number = match byte >> 4 {
            0 => self.integer()?,
            delta => last + i64::from(delta),
        };
        if !(0..=i64::from(i16::MAX)).contains(&number) {
            return Err(Broken::Meaning(
                "a field in its metadata has an impossible number",
            ));
        }
        Ok(Some((byte & 0x0f, number)))
    }

    /// The element type and the length of a list.
    pub(super) fn list(&mut self) -> Result<(u8, u64), Broken> {
        let byte = self.byte()?;
        let n = match byte >> 4 {
            15 => self.varint()?,
            n => u64::from(n),
        };
        if n > ELEMENTS_MAX {
            return Err(Broken::Meaning("a list in its metadata is too long"));
        }
        Ok((byte & 0x0f, n))
    }

    /// Passes over a field's value.
    pub(super) fn skip(&mut self, kind: u8) -> Result<(), Broken> {
        self.skip_within(kind, DEPTH_MAX, false)
    }

    fn skip_within(&mut self, kind: u8, depth: u32, in_list: bool) -> Result<(), Broken> {
        if depth == 0 {
            return Err(Broken::Meaning("its metadata is nested too deeply"));
        }
        match kind {
            // A truth value of a field lies in its type; one of a list takes a byte.
            1 | 2 => self.advance(u64::from(in_list)),
            3 => self.advance(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.advance(8),
            8 => {
                let n = self.varint()?;
                self.advance(n)
            }
            9 | 10 => {
                let (element, n) = self.list()?;
                (0..n).try_for_each(|_| self.skip_within(element, depth - 1, true))
            }
            11 => self.skip_map(depth),
            12 => {
                let mut last = 0;
                while let Some((kind, number)) = self.field(last)? {
                    self.skip_within(kind, depth - 1, false)?;
                    last = number;
                }
                Ok(())
            }
            13 => self.advance(16),
            _ => Err(Broken::Meaning("a field in its metadata has an unknown type")),
        }
    }

    fn skip_map(&mut self, depth: u32) -> Result<(), Broken> {
        let n = self.varint()?;
        if n > ELEMENTS_MAX {
            return Err(Broken::Meaning("a map in its metadata is too long"));
        }
        if n == 0 {
            return Ok(());
        }
        let kinds = self.byte()?;
        (0..n).try_for_each(|_| {
            self.skip_within(kinds >> 4, depth - 1, true)?;
            self.skip_within(kinds & 0x0f, depth - 1, true)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_specification() {
        let integer = |bytes: &[u8]| Cursor::new(bytes).integer();
        assert_eq!(integer(&[0x00]), Ok(0));
        assert_eq!(integer(&[0x01]), Ok(-1));
        assert_eq!(integer(&[0x02]), Ok(1));
        assert_eq!(integer(&[0xac, 0x02]), Ok(150));
        assert_eq!(integer(&[0xfe, 0xff, 0xff, 0xff, 0x0f]), Ok(i64::from(i32::MAX)));
        assert_eq!(
            integer(&[0xff; 11]),
            Err(Broken::Meaning("a number in its metadata has more than 64 bits"))
        );
        assert_eq!(integer(&[0x80]), Err(Broken::End));
    }

    #[test]
    fn a_structure_is_passed_over_whole() {
        // 1: i32 1, 2: binary "ab", 3: list of two bytes, 4: true, 5: struct {1: double}, 6: map of i32 to byte, end.
        let mut bytes = vec![
            0x15, 0x02, 0x18, 0x02, b'a', b'b', 0x19, 0x23, 9, 9, 0x11, 0x1c, 0x17,
        ];
        bytes.extend([0; 8]);
        bytes.extend([0x00, 0x1b, 0x01, 0x53, 0x02, 0x07, 0x00]);
        let mut cursor = Cursor::new(&bytes);
        cursor.skip(STRUCT).unwrap();
        assert_eq!(cursor.position(), bytes.len());
        for n in 0..bytes.len() {
            assert_eq!(
                Cursor::new(&bytes[..n]).skip(STRUCT),
                Err(Broken::End),
                "cut to {n}"
            );
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let nested = vec![0x1c; 100_000];
        assert!(matches!(
            Cursor::new(&nested).skip(STRUCT),
            Err(Broken::Meaning(_))
        ));
        let mut long = vec![0x19, 0xf3];
        long.extend([0xff, 0xff, 0xff, 0xff, 0x7f]);
        assert!(matches!(Cursor::new(&long).skip(STRUCT), Err(Broken::Meaning(_))));
    }
}
