//! The data plane's transport: endpoints, sessions, artifacts, probes.
