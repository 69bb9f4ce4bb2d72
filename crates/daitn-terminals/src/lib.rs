//! What a node runs: dataset terminal, compute, aggregator, verification unit, model host, agent host.
