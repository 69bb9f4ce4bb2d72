//! The daitn command.
fn main() {}
