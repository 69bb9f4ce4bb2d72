//! What runs models: train, evaluate, infer; reads tabular data.
