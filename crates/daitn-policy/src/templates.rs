//! Owner policies from a few declared choices, as Cedar text that the owner can read and edit: what `daitn data init`
//! writes.

use crate::{error::PolicyError, policies::PolicySet};
use daitn_messages::{ids::OrganisationId, policy::Verb};
use std::fmt::Write as _;

/// What an owner allows, in the cases that come up every day. Everything else is written in Cedar by hand.
///
/// Anybody may discover the entity; to train on it or to evaluate on it, every condition that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnerPolicy {
    /// Purposes that are allowed, for instance `research`; empty: any.
    pub purposes: Vec<String>,
    /// Purposes that are forbidden whatever else is said, for instance `commercial`.
    pub purposes_forbidden: Vec<String>,
    /// Organisations that may ask; empty: any.
    pub organisations: Vec<OrganisationId>,
    /// Jurisdictions that a requester may be in, ISO 3166-1 alpha-2; empty: any.
    pub jurisdictions: Vec<String>,
    /// Fewest sites that must take part in a training, so that no update stands alone; 0 and 1 say nothing.
    pub cohort_min: u32,
    /// Protections that must be in force in a training, for instance `norm-clip`.
    pub protections: Vec<String>,
    /// Algorithms that are allowed, for instance `fed-avg` or `itinerary`; empty: any.
    pub algorithms: Vec<String>,
    /// Organisations whose nodes may receive an update; empty: any.
    pub recipients: Vec<OrganisationId>,
}

/// Both uses that touch data.
const TOUCHES: &str = r#"action in [Action::"train", Action::"evaluate"]"#;
/// The use that lets an update leave.
const TRAINS: &str = r#"action == Action::"train""#;

impl OwnerPolicy {
    /// The policy as Cedar text with a comment and an id for each rule.
    ///
    /// # Errors
    /// When the values are too many or too long for a policy; see [`PolicySet::parse`].
    pub fn to_cedar(&self) -> Result<String, PolicyError> {
        let mut text = String::new();
        let mut rule = |comment: &str, id: &str, rule: String| {
            if !text.is_empty() {
                text.push('\n');
            }
            writeln!(text, "// {comment}\n@id(\"{id}\")\n{rule}").expect("writing to a string does not fail");
        };
        let discover = Verb::Discover.as_str();
        rule(
            "Anybody may see that this data exists.",
            "anybody-may-discover",
            format!("permit (principal, action == Action::\"{discover}\", resource);"),
        );
        let permit = format!("permit (principal, {TOUCHES}, resource)");
        let permit = match self.grants().join(" &&\n    ") {
            all if all.is_empty() => format!("{permit};"),
            conditions => format!("{permit}\nwhen {{\n    {conditions}\n}};"),
        };
        rule("Who may use it, and what for.", "may-use", permit);
        if !self.purposes_forbidden.is_empty() {
            let purposes = texts(&self.purposes_forbidden);
            rule(
                "Never for these purposes.",
                "purpose-forbidden",
                format!(
                    "forbid (principal, {TOUCHES}, resource)\nwhen {{ {purposes}.contains(context.purpose) }};"
                ),
            );
        }
        for (comment, id, needed) in self.requirements() {
            rule(
                comment,
                id,
                format!("forbid (principal, {TRAINS}, resource)\nunless {{ {needed} }};"),
            );
        }
        PolicySet::parse(&text)?;
        Ok(text)
    }

    /// Conditions of the permit.
    fn grants(&self) -> Vec<String> {
        let mut grants = Vec::new();
        if !self.purposes.is_empty() {
            grants.push(format!("{}.contains(context.purpose)", texts(&self.purposes)));
        }
        if !self.organisations.is_empty() {
            grants.push(format!(
                "{}.contains(principal)",
                organisations(&self.organisations)
            ));
        }
        if !self.jurisdictions.is_empty() {
            grants.push(format!(
                "{}.contains(context.jurisdiction)",
                texts(&self.jurisdictions)
            ));
        }
        grants
    }

    /// What must hold besides, whoever asks: comment, id, condition.
    fn requirements(&self) -> Vec<(&'static str, &'static str, String)> {
        let mut needed = Vec::new();
        if self.cohort_min > 1 {
            needed.push((
                "Only together with others: an update of few sites says more about each.",
                "cohort-too-small",
                format!("context.cohort >= {}", self.cohort_min),
            ));
        }
        if !self.protections.is_empty() {
            let all = texts(&self.protections);
            needed.push((
                "Only with these protections.",
                "protection-missing",
                format!("context.protections.containsAll({all})"),
            ));
        }
        if !self.algorithms.is_empty() {
            let any = texts(&self.algorithms);
            needed.push((
                "Only with these algorithms.",
                "algorithm-not-allowed",
                format!("{any}.contains(context.algorithm)"),
            ));
        }
        if !self.recipients.is_empty() {
            let all = organisations(&self.recipients);
            needed.push((
                "Updates may reach only these organisations.",
                "recipient-not-allowed",
                format!("{all}.containsAll(context.recipients)"),
            ));
        }
        needed
    }
}

/// `["a", "b"]`, escaped.
fn texts(values: &[String]) -> String {
    let quoted: Vec<String> = values
        .iter()
        .map(|value| format!("\"{}\"", value.escape_default()))
        .collect();
    format!("[{}]", quoted.join(", "))
}

fn organisations(values: &[OrganisationId]) -> String {
    // A slug holds nothing that would need escaping.
    let named: Vec<String> = values
        .iter()
        .map(|value| format!("Organisation::\"{value}\""))
        .collect();
    format!("[{}]", named.join(", "))
}
