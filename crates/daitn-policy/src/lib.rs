//! Policies: who may do what with an entity, in Cedar, with the network's own schema.
//!
//! The control center asks when it plans; the owner's node asks again, from its own copy, before it acts. Both ask here,
//! so that both understand a policy alike. This crate is the only one that knows Cedar. It does no I/O and keeps no
//! state: whoever has many policies slices them by owner and remembers answers by the version of its own state.
//!
//! ```
//! use daitn_policy::{PolicySet, ResourceFacts};
//! use daitn_messages::policy::{PolicyQuestion, UseContext, Verb};
//!
//! let policies = PolicySet::parse(r#"
//!     @id("research-only")
//!     permit (principal, action == Action::"train", resource)
//!     when { context.purpose == "research" && context.cohort >= 3 };
//! "#)?;
//! let question = PolicyQuestion {
//!     who: "university".parse()?,
//!     verb: Verb::Train,
//!     what: "dataset:st-mary/digits".parse()?,
//!     context: UseContext {
//!         purpose: "research".into(),
//!         algorithm: "fed-avg".into(),
//!         protections: vec![],
//!         cohort: 3,
//!         jurisdiction: "DE".into(),
//!         recipients: vec!["aggregators".parse()?],
//!     },
//! };
//! let facts = ResourceFacts::new(&question.what, "DE");
//! let answer = policies.answer(&question, &facts);
//! assert!(answer.allowed);
//! assert_eq!(answer.determining, ["research-only"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod schema;
pub use schema::SCHEMA;

mod policies;
pub use policies::{POLICIES_MAX, PolicySet, ResourceFacts};

mod decision;
pub use decision::{combine, forbids, permit_by_either};

mod templates;
pub use templates::OwnerPolicy;

mod nesting;
pub use nesting::{OPERATORS_MAX, STACK_DEPTH_MAX};

mod error;
pub use error::{PolicyError, Position};
