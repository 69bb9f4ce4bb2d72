//! What runs models: train step, evaluate, infer; and what they eat: tables read from files that nobody vouches for.
//!
//! The only crate that knows an ML framework. Who uses it sees an [`Engine`], a [`Layout`] (which tensors a model
//! has, and where each lies in the flat parameter vector), [`weights`] files and [`data`] tables; never a tensor of
//! the framework. Nothing here reads a clock, opens a socket or takes randomness from the machine.

mod engine;
mod layout;
mod random;
mod table;

pub mod builtin;
pub mod data;
pub mod weights;

pub use engine::{Engine, EngineError, Loaded, LocalRule, Outputs, Progress, Report, TrainOutcome, Work};
pub use layout::{ELEMENTS_MAX, Layout, LayoutError, TENSOR_NAME_BYTES_MAX, TENSORS_MAX, TensorSpec};
pub use table::{Table, TableError, Targets};

/// Nearest `f32`, ties to even; infinity beyond its range.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding is the purpose; callers check that the result is finite"
)]
fn nearest_f32(value: f64) -> f32 {
    value as f32
}
