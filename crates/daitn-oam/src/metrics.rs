//! Metrics in Prometheus' text format (OpenMetrics 1.0). Sources are asked when somebody scrapes: counting costs the
//! one who counts an atomic increment and nothing else.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises. Its name gets the suffix `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// One number, now.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name with the unit last, without `daitn_` and `_total`: `gateway_requests`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Labels, of bounded variety: classes, never ids.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: f64,
}

impl Sample {
    /// A counter without labels.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a count beyond 2^53 may lose its last digit"
    )]
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self {
            name,
            help,
            kind: Kind::Counter,
            labels: Vec::new(),
            value: value as f64,
        }
    }
    /// A gauge without labels.
    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self {
            name,
            help,
            kind: Kind::Gauge,
            labels: Vec::new(),
            value,
        }
    }
    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((name, value.into()));
        self
    }
}

type Source = Box<dyn Fn() -> Vec<Sample> + Send + Sync>;

/// All metrics of a process.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            registry: Arc::new(Mutex::new(Registry::with_prefix("daitn"))),
        }
    }
}

impl Metrics {
    /// Adds a source. It is called at each scrape and must be quick. Samples of one name must follow each other.
    pub fn register(&self, source: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
        let collector = SourceCollector(Box::new(source));
        self.registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .register_collector(Box::new(collector));
    }

    /// The text that a scraper reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut page = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String fails only where a source gives an impossible sample; the rest of the page stands.
        if let Err(error) = text::encode(&mut page, &registry) {
            tracing::warn!(%error, "a metric could not be written");
        }
        page
    }
}

struct SourceCollector(Source);

impl fmt::Debug for SourceCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceCollector")
    }
}

impl Collector for SourceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let samples = (self.0)();
        let mut rest = samples.as_slice();
        while let Some(first) = rest.first() {
            let n = rest.iter().take_while(|s| s.name == first.name).count();
            let (group, others) = rest.split_at(n);
            rest = others;
            let metric_type = match first.kind {
                Kind::Counter => ConstCounter::new(0_f64).metric_type(),
                Kind::Gauge => ConstGauge::new(0_f64).metric_type(),
            };
            let mut metric = encoder.encode_descriptor(first.name, first.help, None, metric_type)?;
            for sample in group {
                let number: Box<dyn EncodeMetric> = match sample.kind {
                    Kind::Counter => Box::new(ConstCounter::new(sample.value)),
                    Kind::Gauge => Box::new(ConstGauge::new(sample.value)),
                };
                number.encode(metric.encode_family(&sample.labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected page is written from the OpenMetrics 1.0 text format, section 3.
    #[test]
    fn a_page_is_open_metrics() {
        let metrics = Metrics::default();
        metrics.register(|| {
            vec![
                Sample::counter("requests", "Requests answered", 7).label("class", "infer"),
                Sample::counter("requests", "Requests answered", 2).label("class", "a2a"),
                Sample::gauge("nodes_online", "Nodes connected now", 9.0),
            ]
        });
        assert_eq!(
            metrics.to_text(),
            "# HELP daitn_requests Requests answered\n# TYPE daitn_requests counter\n\
             daitn_requests_total{class=\"infer\"} 7.0\ndaitn_requests_total{class=\"a2a\"} 2.0\n\
             # HELP daitn_nodes_online Nodes connected now\n# TYPE daitn_nodes_online gauge\n\
             daitn_nodes_online{} 9.0\n# EOF\n"
        );
    }
}
