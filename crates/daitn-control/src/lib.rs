//! The control center: registry, policy, discovery, plans, orchestration.
