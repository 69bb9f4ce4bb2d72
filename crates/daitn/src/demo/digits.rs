//! The demo's data: optical digits of the UCI repository (E. Alpaydin, C. Kaynak; CC BY 4.0), embedded in the binary and
//! dealt out to sites and verification units.

use crate::failure::Failure;
use daitn_learning::split::{Skew, dirichlet, sized};

/// 1,797 images of 8×8 pixels from 0 to 16, and the label.
const CSV: &str = include_str!("../../../../examples/digits/digits.csv");
/// Pixels of an image.
pub(crate) const N_FEATURES: usize = 64;
/// Digits.
pub(crate) const N_CLASSES: usize = 10;
/// Records of each verification unit.
const HOLD_OUT: usize = 180;
/// Concentration of the Dirichlet distribution by which labels are dealt out: strongly skewed.
const ALPHA: f64 = 0.1;
/// Fewest records of a site.
const N_MIN: usize = 30;

/// The digits, parsed.
pub(crate) struct Digits {
    header: &'static str,
    lines: Vec<&'static str>,
    pixels: Vec<f32>,
    labels: Vec<u32>,
}

/// Who gets which records.
pub(crate) struct Dealt {
    /// For each site.
    pub(crate) sites: Vec<Vec<usize>>,
    /// For each verification unit: in no site's share.
    pub(crate) hold_outs: Vec<Vec<usize>>,
}

impl Digits {
    /// Reads the embedded file.
    pub(crate) fn read() -> Result<Self, Failure> {
        let odd = |why: &str| Failure::internal(format!("the embedded digits: {why}"));
        let mut lines = CSV.lines().filter(|line| !line.is_empty());
        let header = lines.next().ok_or_else(|| odd("no header"))?;
        let lines: Vec<&'static str> = lines.collect();
        let mut pixels = Vec::with_capacity(lines.len() * N_FEATURES);
        let mut labels = Vec::with_capacity(lines.len());
        for line in &lines {
            let before = pixels.len();
            let (image, label) = line
                .rsplit_once(',')
                .ok_or_else(|| odd("a line without a label"))?;
            for pixel in image.split(',') {
                pixels.push(pixel.parse::<f32>().map_err(|_| odd("a pixel is not a number"))?);
            }
            labels.push(label.parse::<u32>().map_err(|_| odd("a label is not a number"))?);
            if pixels.len() - before != N_FEATURES {
                return Err(odd("an image has not 64 pixels"));
            }
        }
        Ok(Self {
            header,
            lines,
            pixels,
            labels,
        })
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }
    /// A record's pixels.
    pub(crate) fn image(&self, record: usize) -> &[f32] {
        &self.pixels[record * N_FEATURES..(record + 1) * N_FEATURES]
    }
    /// A record's digit.
    pub(crate) fn label(&self, record: usize) -> u32 {
        self.labels[record]
    }
    /// These records as a CSV file.
    pub(crate) fn csv(&self, records: &[usize]) -> String {
        let mut text = format!("{}\n", self.header);
        for record in records {
            text.push_str(self.lines[*record]);
            text.push('\n');
        }
        text
    }
    /// Names of the feature columns.
    pub(crate) fn features(&self) -> Vec<String> {
        self.header
            .split(',')
            .take(N_FEATURES)
            .map(ToOwned::to_owned)
            .collect()
    }

    /// Deals the records out.
    pub(crate) fn deal(&self, n_sites: usize, n_units: usize, seed: u64) -> Result<Dealt, Failure> {
        let failed = |error: daitn_learning::split::SplitError| Failure::usage(error.to_string());
        let mut sizes = vec![HOLD_OUT; n_units];
        sizes.push(self.len().saturating_sub(HOLD_OUT * n_units));
        let mut hold_outs = sized(self.len(), &sizes, seed).map_err(failed)?;
        let training = hold_outs.pop().unwrap_or_default();
        let labels: Vec<u32> = training.iter().map(|record| self.labels[*record]).collect();
        let shares = dirichlet(
            &labels,
            Skew {
                n_sites,
                alpha: ALPHA,
                n_min: N_MIN,
                seed,
            },
        )
        .map_err(failed)?;
        let sites = shares
            .into_iter()
            .map(|share| share.into_iter().map(|i| training[i]).collect())
            .collect();
        Ok(Dealt { sites, hold_outs })
    }
}

/// An image as a terminal shows it: two rows of pixels in one line of text.
pub(crate) fn drawn(image: &[f32]) -> Vec<String> {
    /// From no ink to all ink (16).
    const INK: [char; 5] = [' ', '░', '▒', '▓', '█'];
    image
        .chunks(8)
        .map(|row| {
            row.iter()
                .map(|pixel| {
                    let level = if *pixel < 2.0 {
                        0
                    } else if *pixel < 6.0 {
                        1
                    } else if *pixel < 10.0 {
                        2
                    } else if *pixel < 14.0 {
                        3
                    } else {
                        4
                    };
                    // Twice, because a character is about twice as high as wide.
                    INK[level].to_string().repeat(2)
                })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_record_is_dealt_twice_and_labels_are_skewed() {
        let digits = Digits::read().unwrap();
        // What the UCI page says of the test part.
        assert_eq!(digits.len(), 1_797);
        let dealt = digits.deal(5, 2, 7).unwrap();
        let all: Vec<usize> = dealt
            .sites
            .iter()
            .chain(&dealt.hold_outs)
            .flatten()
            .copied()
            .collect();
        assert_eq!(all.len(), digits.len());
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(dealt.hold_outs.iter().all(|h| h.len() == HOLD_OUT));
        // Skewed: at some site one digit makes up more than a third, where evenly it would be a tenth.
        let skewed = dealt.sites.iter().any(|site| {
            (0..10).any(|digit| site.iter().filter(|r| digits.label(**r) == digit).count() * 3 > site.len())
        });
        assert!(skewed);
        assert_eq!(
            digits.csv(&dealt.sites[0]).lines().count(),
            dealt.sites[0].len() + 1
        );
    }
}
