//! The data section as a stream of numbers, both ways, in bounded memory.

use super::{Numbers, WeightsError, header};
use crate::Layout;
use std::io::{Read, Write};

/// Bytes converted at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// The data section of a file whose header was checked.
#[derive(Debug)]
pub struct Section<'a, R> {
    reader: R,
    layout: &'a Layout,
    numbers: Numbers,
    /// Numbers read so far.
    position: usize,
}

impl<'a, R: Read> Section<'a, R> {
    /// Reads and checks the header of a file of `n_bytes`; takes no memory for the data.
    ///
    /// # Errors
    /// Whatever makes the file anything else than this layout's tensors.
    pub fn open(
        mut reader: R,
        n_bytes: u64,
        layout: &'a Layout,
        numbers: Numbers,
    ) -> Result<Self, WeightsError> {
        if n_bytes < header::LENGTH_BYTES {
            return Err(WeightsError::Truncated { found: n_bytes });
        }
        let mut first = [0; 8];
        reader.read_exact(&mut first)?;
        let mut json = vec![0; header::check_length(first, n_bytes)?];
        reader.read_exact(&mut json)?;
        header::check(&json, n_bytes, layout)?;
        Ok(Self {
            reader,
            layout,
            numbers,
            position: 0,
        })
    }

    /// How many numbers are still to come.
    #[must_use]
    pub fn n_remaining(&self) -> usize {
        self.layout.n_elements() - self.position
    }

    /// Fills `out` with the next numbers.
    ///
    /// # Errors
    /// If fewer are left, if one is not finite where that matters, or what the reader says.
    pub fn read(&mut self, out: &mut [f32]) -> Result<(), WeightsError> {
        if out.len() > self.n_remaining() {
            return Err(WeightsError::Count {
                expected: self.n_remaining(),
                found: out.len(),
            });
        }
        let mut bytes = [0_u8; CHUNK_BYTES];
        for part in out.chunks_mut(CHUNK_BYTES / 4) {
            let bytes = &mut bytes[..4 * part.len()];
            self.reader.read_exact(bytes)?;
            for (number, bytes) in part.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *number = f32::from_le_bytes(*bytes);
            }
            if self.numbers == Numbers::Finite {
                check_finite(part, self.position, self.layout)?;
            }
            self.position += part.len();
        }
        Ok(())
    }

    /// All that is left.
    ///
    /// # Errors
    /// As for [`Section::read`].
    pub fn read_all(mut self) -> Result<Vec<f32>, WeightsError> {
        let mut out = vec![0.0; self.n_remaining()];
        self.read(&mut out)?;
        Ok(out)
    }

    /// The reader, at the next number's first byte.
    pub fn into_reader(self) -> R {
        self.reader
    }
}

/// Writes a canonical file number by number.
#[derive(Debug)]
pub struct Writer<'a, W> {
    writer: W,
    layout: &'a Layout,
    /// Numbers written so far.
    position: usize,
}

impl<'a, W: Write> Writer<'a, W> {
    /// Writes the header.
    ///
    /// # Errors
    /// What the writer says.
    pub fn new(mut writer: W, layout: &'a Layout) -> Result<Self, WeightsError> {
        writer.write_all(&header::header(layout))?;
        Ok(Self {
            writer,
            layout,
            position: 0,
        })
    }

    /// Writes the next numbers, of one or of several tensors.
    ///
    /// # Errors
    /// If they are more than the layout has or not finite, or what the writer says.
    pub fn write(&mut self, numbers: &[f32]) -> Result<(), WeightsError> {
        let n_written = self.position + numbers.len();
        if n_written > self.layout.n_elements() {
            return Err(WeightsError::Count {
                expected: self.layout.n_elements(),
                found: n_written,
            });
        }
        check_finite(numbers, self.position, self.layout)?;
        let mut bytes = [0_u8; CHUNK_BYTES];
        for part in numbers.chunks(CHUNK_BYTES / 4) {
            let bytes = &mut bytes[..4 * part.len()];
            for (bytes, number) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(part) {
                *bytes = number.to_le_bytes();
            }
            self.writer.write_all(bytes)?;
        }
        self.position = n_written;
        Ok(())
    }

    /// Checks that the file is whole, flushes it and gives the writer back.
    ///
    /// # Errors
    /// If numbers are missing, or what the writer says.
    pub fn finish(mut self) -> Result<W, WeightsError> {
        if self.position != self.layout.n_elements() {
            return Err(WeightsError::Count {
                expected: self.layout.n_elements(),
                found: self.position,
            });
        }
        self.writer.flush()?;
        Ok(self.writer)
    }
}

fn check_finite(numbers: &[f32], first: usize, layout: &Layout) -> Result<(), WeightsError> {
    // A product with zero is NaN for what is not finite: one sum for all, without a branch for each.
    if numbers.iter().map(|x| x * 0.0).sum::<f32>() == 0.0 {
        return Ok(());
    }
    let index = numbers
        .iter()
        .position(|x| !x.is_finite())
        .expect("the sum is zero for finite numbers");
    let tensor = layout
        .tensor_at(first + index)
        .expect("the position lies within the layout");
    let start = layout
        .range_of(&tensor.name)
        .expect("the tensor is part of the layout")
        .start;
    Err(WeightsError::NotFinite {
        name: tensor.name.clone(),
        index: first + index - start,
    })
}
