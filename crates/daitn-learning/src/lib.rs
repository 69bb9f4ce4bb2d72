//! Pure learning: strategies, aggregation, metrics over flat f32 parameters.
