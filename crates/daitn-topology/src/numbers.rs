//! Conversions between counts and floating point, in one place, with what happens at the ends.

pub(crate) use daitn_messages::units::counted;

/// A non-negative number as a whole one, rounded up; what is too large or not a number becomes the largest.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn whole(value: f64) -> u64 {
    // `as` saturates; NaN would become 0, which could pass for "costs nothing".
    if value.is_nan() {
        u64::MAX
    } else {
        value.ceil() as u64
    }
}

/// A position as it travels in plans.
pub(crate) fn index(position: usize) -> u32 {
    u32::try_from(position).expect("there are fewer than 2^32 entities in memory")
}
