//! Entities: as found, and one card in full.

use crate::{
    output::Shown,
    paint::Paint,
    render::{
        PROSE_WIDTH, Table, bar, bytes, count, date_time, facts, listed, percent, section, shortened, wrapped,
    },
};
use daitn_messages::{
    descriptor::{Body, DatasetBody, Descriptor},
    learning::Task,
    request::Hit,
};
use serde::Serialize;

/// What was found.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Hits(pub(crate) Vec<Hit>);

impl Shown for Hits {
    fn human(&self, paint: Paint, wide: bool) -> String {
        let empty = "Nothing found. `daitn search` without conditions lists everything that you may see.";
        let mut table = Table::new(
            paint,
            &["ENTITY", "STATE", "WHAT IT IS", "UNDER", "VERSION"],
            empty,
        );
        for hit in &self.0 {
            let descriptor = &hit.descriptor;
            let about = described(descriptor);
            table.row([
                paint.name(&descriptor.entity),
                if hit.online {
                    paint.good("online")
                } else {
                    paint.warn("offline")
                },
                if wide { about } else { shortened(&about, 64) },
                descriptor.jurisdiction.clone(),
                descriptor.version.to_string(),
            ]);
        }
        table.text()
    }
    fn names(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|hit| hit.descriptor.entity.to_string())
            .collect()
    }
}

/// What an entity is, in one line.
pub(crate) fn described(descriptor: &Descriptor) -> String {
    match &descriptor.body {
        Body::Dataset(d) => {
            format!(
                "about {} records, {} → {}",
                count(d.records),
                columns(&d.features),
                target(d)
            )
        }
        Body::Verifier(v) => format!("judges {} from {}", v.target, columns(&v.features)),
        Body::Model(m) => {
            let score = m.evaluations.first().and_then(|e| e.metrics.first());
            let found = score.map_or(String::new(), |(metric, value)| {
                format!(", {} {value:.3}", metric.as_str())
            });
            format!(
                "version {}, {} of weights{found}",
                m.model_version,
                bytes(m.weights_bytes)
            )
        }
        Body::ModelHost(h) => format!("serves from {} of memory", bytes(h.memory_bytes)),
        Body::Compute(c) => format!("trains for others with {} of memory", bytes(c.memory_bytes)),
        Body::Aggregator(_) => "combines updates".to_owned(),
        Body::Agent(a) => {
            let skills: Vec<&str> = a.skills.iter().map(|s| s.name.as_str()).collect();
            format!("{}: {}", descriptor.title, skills.join(", "))
        }
    }
}

fn columns(names: &[String]) -> String {
    match names {
        [] => "no column".to_owned(),
        [one] => one.clone(),
        [first, .., last] if names.len() > 4 => format!("{} columns {first}…{last}", names.len()),
        few => few.join(", "),
    }
}

fn target(dataset: &DatasetBody) -> String {
    target_of(&dataset.target, &dataset.task)
}

/// What is predicted, and what it is.
pub(crate) fn target_of(target: &str, task: &Task) -> String {
    match task {
        Task::Classification { classes } => format!("{target} ({} classes)", classes.len()),
        Task::Regression => format!("{target} (a number)"),
    }
}

/// One card in full. JSON holds the descriptor and, for a dataset, its Croissant document.
#[derive(Debug, Serialize)]
pub(crate) struct Card {
    /// Whether its node is connected; none where that is not known, as in a preview.
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<bool>,
    descriptor: Descriptor,
    #[serde(skip_serializing_if = "Option::is_none")]
    croissant: Option<serde_json::Value>,
}

impl Card {
    /// The card of this descriptor.
    pub(crate) fn new(descriptor: Descriptor, online: Option<bool>) -> Self {
        let croissant = daitn_messages::croissant::croissant(&descriptor);
        Self {
            online,
            descriptor,
            croissant,
        }
    }
    /// The Croissant document, of a dataset.
    pub(crate) fn croissant(&self) -> Option<&serde_json::Value> {
        self.croissant.as_ref()
    }
}

impl Shown for Card {
    fn human(&self, paint: Paint, wide: bool) -> String {
        let d = &self.descriptor;
        let mut pairs = vec![("Entity", paint.name(&d.entity)), ("Title", d.title.clone())];
        if !d.description.is_empty() {
            pairs.push(("About", wrapped(&d.description, PROSE_WIDTH)));
        }
        pairs.push(("What it is", described(d)));
        pairs.push(("Version", format!("{} of {}", d.version, date_time(d.issued_at))));
        pairs.push(("Under", d.jurisdiction.clone()));
        let node = if wide { d.node.to_string() } else { d.node.short() };
        let state = match self.online {
            Some(true) => format!(", {}", paint.good("online")),
            Some(false) => format!(", {}", paint.warn("offline")),
            None => String::new(),
        };
        pairs.push(("Node", format!("{node}{state}")));
        let mut text = facts(paint, &pairs);
        match &d.body {
            Body::Dataset(dataset) => text.push_str(&dataset_part(paint, dataset, wide)),
            Body::Agent(agent) => {
                let skills: Vec<String> = agent
                    .skills
                    .iter()
                    .map(|s| format!("{}  {}  [{}]", s.id, s.name, s.tags.join(", ")))
                    .collect();
                text.push_str(&format!("\n\n{}", section(paint, "Skills", &skills.join("\n"))));
            }
            _ => {}
        }
        text
    }
    fn names(&self) -> Vec<String> {
        vec![self.descriptor.entity.to_string()]
    }
}

fn dataset_part(paint: Paint, dataset: &DatasetBody, wide: bool) -> String {
    let mut pairs = vec![
        ("Features", listed(&dataset.features, wide, PROSE_WIDTH)),
        ("Target", target(dataset)),
        ("Records", format!("about {}", count(dataset.records))),
        ("Licence", dataset.license.clone()),
        ("Creator", dataset.creator.clone()),
        ("Data version", dataset.data_version.clone()),
        ("Schema", dataset.schema_fingerprint.short()),
    ];
    if let Task::Classification { classes } = &dataset.task {
        pairs.insert(2, ("Classes", listed(classes, wide, PROSE_WIDTH)));
    }
    if !dataset.usage.is_empty() {
        pairs.push(("Use", dataset.usage.clone()));
    }
    let mut text = format!("\n\n{}", section(paint, "Data", &facts(paint, &pairs)));
    if let Some(bars) = label_bars(dataset) {
        text.push_str(&format!(
            "\n\n{}",
            section(paint, "Labels (cells under ten records are not told)", &bars)
        ));
    }
    text.push_str(&format!(
        "\n\n{}",
        section(paint, "Policy", dataset.policy.trim())
    ));
    text
}

/// The label distribution as bars, where the owner tells it.
pub(crate) fn label_bars(dataset: &DatasetBody) -> Option<String> {
    let (Some(shares), Task::Classification { classes }) = (&dataset.label_distribution, &dataset.task)
    else {
        return None;
    };
    let width = classes.iter().map(|c| c.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = classes
        .iter()
        .zip(shares)
        .map(|(class, share)| {
            // A cell under ten records is published as zero: that it is small, and no more.
            let told = if *share > 0.0 {
                percent(f64::from(*share))
            } else {
                "not told".to_owned()
            };
            format!("{class:>width$}  {}  {told:>8}", bar(f64::from(*share), 24))
        })
        .collect();
    Some(lines.join("\n"))
}
