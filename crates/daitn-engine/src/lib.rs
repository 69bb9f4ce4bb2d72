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

pub use engine::{
    Engine, EngineError, Loaded, LocalRule, Outputs, Progress, Report, TrainOutcome, Work,
};
pub use layout::{Layout, LayoutError, TensorSpec};
pub use table::{Table, TableError, Targets};
