//! A parsed, checked set of policies, and what it answers.

use crate::{
    error::{PolicyError, Position},
    nesting, schema,
};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, Policy, PolicyId, Request,
    ResourceConstraint, RestrictedExpression, ValidationMode, ValidationWarning, ffi::DetailedError,
};
use daitn_messages::{
    descriptor::{Body, Descriptor},
    ids::{EntityId, EntityKind, OrganisationId},
    learning::Task,
    limits,
    policy::{PolicyAnswer, PolicyQuestion, UseContext},
};
use std::collections::{HashMap, HashSet};

/// Most rules in one policy text.
pub const POLICIES_MAX: usize = 256;

/// What a policy can know of the entity that is asked about, beyond its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceFacts {
    /// Whose it is.
    pub organisation: OrganisationId,
    /// ISO 3166-1 alpha-2 code of the law it is under.
    pub jurisdiction: String,
    /// What it is.
    pub kind: EntityKind,
    /// What its descriptor says of it, as `name:value`.
    pub labels: Vec<String>,
}

impl ResourceFacts {
    /// Facts without labels.
    #[must_use]
    pub fn new(entity: &EntityId, jurisdiction: &str) -> Self {
        Self {
            organisation: entity.organisation.clone(),
            jurisdiction: jurisdiction.to_owned(),
            kind: entity.kind,
            labels: Vec::new(),
        }
    }

    /// What a descriptor says: `license:…`, `target:…` and `task:…` of a dataset, `target:…` and `task:…` of a
    /// verification unit, `skill:…` of an agent. Free text (title, description) is never among them.
    #[must_use]
    pub fn of(descriptor: &Descriptor) -> Self {
        let labels = match &descriptor.body {
            Body::Dataset(body) => vec![
                format!("license:{}", body.license),
                format!("target:{}", body.target),
                task_label(&body.task),
            ],
            Body::Verifier(body) => vec![format!("target:{}", body.target), task_label(&body.task)],
            Body::Agent(body) => body
                .skills
                .iter()
                .map(|skill| format!("skill:{}", skill.id))
                .collect(),
            Body::Compute(_) | Body::Model(_) | Body::ModelHost(_) | Body::Aggregator(_) => Vec::new(),
        };
        Self {
            labels,
            ..Self::new(&descriptor.entity, &descriptor.jurisdiction)
        }
    }
}

fn task_label(task: &Task) -> String {
    match task {
        Task::Classification { .. } => "task:classification".into(),
        Task::Regression => "task:regression".into(),
    }
}

/// A set of policies that parses, fits the schema and is not empty.
#[derive(Debug, Clone)]
pub struct PolicySet {
    policies: cedar_policy::PolicySet,
    ids: Vec<String>,
    warnings: Vec<String>,
    resource_matters: bool,
}

impl PolicySet {
    /// Reads and checks a text. A rule is named by its `@id("…")`, or `policy0`, `policy1`, … by its place.
    ///
    /// # Errors
    /// Says where, what and what to do; see [`PolicyError`].
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > limits::POLICY_BYTES_MAX {
            return Err(PolicyError::TooLong {
                bytes: text.len(),
                bytes_max: limits::POLICY_BYTES_MAX,
            });
        }
        nesting::check(text)?;
        let parsed: cedar_policy::PolicySet = text
            .parse()
            .map_err(|error| PolicyError::syntax(text, &DetailedError::from(&error)))?;
        if let Some(template) = parsed.templates().next() {
            return Err(PolicyError::Slot {
                policy: template.id().to_string(),
            });
        }
        let n_policies = parsed.num_of_policies();
        if n_policies == 0 {
            return Err(PolicyError::Empty);
        }
        if n_policies > POLICIES_MAX {
            return Err(PolicyError::TooMany {
                found: n_policies,
                max: POLICIES_MAX,
            });
        }
        let (policies, ids) = named(&parsed)?;
        names_entities(text, &policies)?;
        let warnings = validate(text, &policies)?;
        // Each rule names the resource once, in its scope; a rule that says more of it names it again.
        let unconstrained = |policy: &Policy| policy.resource_constraint() == ResourceConstraint::Any;
        let resource_matters =
            nesting::n_words(text, "resource") != n_policies || !policies.policies().all(unconstrained);
        Ok(Self {
            policies,
            ids,
            warnings,
            resource_matters,
        })
    }

    /// Whether an answer can depend on which entity is asked about. Where it cannot, one answer holds for all entities
    /// that share these policies.
    #[must_use]
    pub fn resource_matters(&self) -> bool {
        self.resource_matters
    }

    /// The rules' ids, sorted.
    #[must_use]
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// What is suspicious without being wrong, for instance a rule that can never apply.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Answers a question. Denied unless a `permit` applies, no `forbid` applies and every rule could be evaluated.
    /// The determining ids are those of the forbids that apply or else of the permits that apply, sorted.
    #[must_use]
    pub fn answer(&self, question: &PolicyQuestion, facts: &ResourceFacts) -> PolicyAnswer {
        let (request, entities) = match put(question, facts) {
            Ok(asked) => asked,
            Err(error) => {
                return PolicyAnswer {
                    allowed: false,
                    determining: Vec::new(),
                    errors: vec![error],
                };
            }
        };
        let response = Authorizer::new().is_authorized(&request, &self.policies, &entities);
        let diagnostics = response.diagnostics();
        let mut determining: Vec<String> = diagnostics.reason().map(ToString::to_string).collect();
        determining.sort_unstable();
        let mut errors: Vec<String> = diagnostics.errors().map(ToString::to_string).collect();
        errors.sort_unstable();
        let allowed = response.decision() == Decision::Allow && errors.is_empty();
        // Permits that a failing rule overrules determine nothing.
        if response.decision() == Decision::Allow && !allowed {
            determining.clear();
        }
        PolicyAnswer {
            allowed,
            determining,
            errors,
        }
    }
}

/// Gives every rule its own id.
fn named(parsed: &cedar_policy::PolicySet) -> Result<(cedar_policy::PolicySet, Vec<String>), PolicyError> {
    let mut ids: Vec<String> = Vec::with_capacity(parsed.num_of_policies());
    let mut seen = HashSet::new();
    let mut policies: Vec<Policy> = Vec::with_capacity(parsed.num_of_policies());
    for policy in parsed.policies() {
        let id = policy
            .annotation("id")
            .map_or_else(|| policy.id().to_string(), ToOwned::to_owned);
        if id.is_empty() || id.len() > limits::NAME_BYTES_MAX || id.chars().any(char::is_control) {
            return Err(PolicyError::BadId {
                id: id.escape_debug().take(limits::NAME_BYTES_MAX).collect(),
                bytes_max: limits::NAME_BYTES_MAX,
            });
        }
        if !seen.insert(id.clone()) {
            return Err(PolicyError::SameId { id });
        }
        policies.push(policy.new_id(PolicyId::new(&id)));
        ids.push(id);
    }
    ids.sort_unstable();
    let policies = cedar_policy::PolicySet::from_policies(policies)
        .expect("ids were checked to differ and there are no templates");
    Ok((policies, ids))
}

/// Whether what the rules name could be an entity: a rule on anything else would pass and never match.
fn names_entities(text: &str, policies: &cedar_policy::PolicySet) -> Result<(), PolicyError> {
    for policy in policies.policies() {
        for literal in policy.entity_literals() {
            if let Some(meant) = schema::misnamed(&literal) {
                let literal = literal.to_string();
                return Err(PolicyError::NoEntity {
                    policy: policy.id().to_string(),
                    position: text.find(&literal).map(|byte| Position::of(text, byte)),
                    literal: literal.chars().take(limits::NAME_BYTES_MAX).collect(),
                    meant,
                });
            }
        }
    }
    Ok(())
}

/// Checks against the schema; gives the warnings.
fn validate(text: &str, policies: &cedar_policy::PolicySet) -> Result<Vec<String>, PolicyError> {
    let result = schema::VALIDATOR.validate(policies, ValidationMode::Strict);
    // Cedar gives errors in no fixed order: the first in the text is told.
    let first = result
        .validation_errors()
        .map(|error| (DetailedError::from(error), error.policy_id().to_string()))
        .min_by_key(|(error, policy)| {
            let start = error.source_locations.first().map(|label| label.loc.start);
            (start.unwrap_or(usize::MAX), policy.clone(), error.message.clone())
        });
    if let Some((error, policy)) = first {
        return Err(PolicyError::schema(text, &policy, &error));
    }
    let mut warnings = Vec::new();
    for warning in result.validation_warnings() {
        match warning {
            ValidationWarning::BidiCharsInString(_) | ValidationWarning::BidiCharsInIdentifier(_) => {
                return Err(PolicyError::Disguised {
                    policy: warning.policy_id().to_string(),
                });
            }
            other => warnings.push(other.to_string()),
        }
    }
    warnings.sort_unstable();
    Ok(warnings)
}

/// The question in Cedar's terms. What is made here fits the schema by construction, so it is not checked again.
fn put(question: &PolicyQuestion, facts: &ResourceFacts) -> Result<(Request, Entities), String> {
    let owner = schema::organisation(facts.organisation.as_str());
    let resource = schema::resource(question.what.kind, &question.what.to_string());
    let request = Request::new(
        schema::organisation(question.who.as_str()),
        schema::action(question.verb),
        resource.clone(),
        context(&question.context)?,
        None,
    )
    .map_err(|error| error.to_string())?;
    let entity = entity(resource, owner, facts)?;
    let entities = Entities::from_entities([entity], None).map_err(|error| error.to_string())?;
    Ok((request, entities))
}

fn entity(resource: EntityUid, owner: EntityUid, facts: &ResourceFacts) -> Result<Entity, String> {
    let attributes = HashMap::from([
        (
            "organisation".to_owned(),
            RestrictedExpression::new_entity_uid(owner.clone()),
        ),
        ("jurisdiction".to_owned(), string(&facts.jurisdiction)),
        ("kind".to_owned(), string(facts.kind.as_str())),
        ("labels".to_owned(), strings(&facts.labels)),
    ]);
    Entity::new(resource, attributes, HashSet::from([owner])).map_err(|error| error.to_string())
}

fn context(context: &UseContext) -> Result<Context, String> {
    let recipients = context
        .recipients
        .iter()
        .map(|recipient| RestrictedExpression::new_entity_uid(schema::organisation(recipient.as_str())));
    Context::from_pairs([
        ("purpose".to_owned(), string(&context.purpose)),
        ("algorithm".to_owned(), string(&context.algorithm)),
        ("protections".to_owned(), strings(&context.protections)),
        (
            "cohort".to_owned(),
            RestrictedExpression::new_long(i64::from(context.cohort)),
        ),
        ("jurisdiction".to_owned(), string(&context.jurisdiction)),
        ("recipients".to_owned(), RestrictedExpression::new_set(recipients)),
    ])
    .map_err(|error| error.to_string())
}

fn string(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn strings(texts: &[String]) -> RestrictedExpression {
    RestrictedExpression::new_set(texts.iter().map(|text| string(text)))
}
