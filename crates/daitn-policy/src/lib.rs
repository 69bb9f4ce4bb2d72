//! Cedar policies with the network's schema.
