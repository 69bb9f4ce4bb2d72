//! Whole nodes against each other, over real endpoints.

mod lab;

mod training;

mod node;

mod orders;

mod hostile;

mod restarts;

mod serving;

mod agents;
