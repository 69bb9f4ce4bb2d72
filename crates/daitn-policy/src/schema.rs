//! The schema that every policy is checked against: what a policy can speak about.

use cedar_policy::{EntityId, EntityTypeName, EntityUid, Schema, Validator};
use daitn_messages::{
    ids::{self, EntityKind, OrganisationId},
    policy::Verb,
};
use std::sync::LazyLock;

/// What a policy can speak about, in Cedar's schema language.
///
/// - *principal*: the organisation that asks.
/// - *action*: what it wants to do; every verb can be asked of every kind of entity.
/// - *resource*: the entity, named by its id (`Dataset::"dataset:st-mary/digits"`). `resource in Organisation::"st-mary"`
///   holds for every entity of that organisation.
/// - *context*: the circumstances, see [`daitn_messages::policy::UseContext`].
///
/// All attributes are always there, so a policy that passes this schema needs no `has`.
pub const SCHEMA: &str = r#"
entity Organisation;

entity Dataset, Compute, Model, ModelHost, Verifier, Aggregator, Agent in [Organisation] = {
    // Whose it is.
    organisation: Organisation,
    // ISO 3166-1 alpha-2 code of the law it is under.
    jurisdiction: String,
    // dataset, compute, model, model-host, verifier, aggregator or agent.
    kind: String,
    // What its descriptor says of it, as name:value, for instance license:CC-BY-4.0 or skill:classify.
    labels: Set<String>,
};

type Use = {
    // What the requester declares: research, care, commercial, ...
    purpose: String,
    // Name of the training strategy, for instance fed-avg; itinerary wherever the model travels from site to site.
    algorithm: String,
    // Protections in force, for instance norm-clip.
    protections: Set<String>,
    // How many organisations besides the requester's have work in every round at least; 1 where the model travels.
    cohort: Long,
    // The requester's jurisdiction, ISO 3166-1 alpha-2.
    jurisdiction: String,
    // Organisations whose nodes will receive an update that was made from the data.
    recipients: Set<Organisation>,
};

action train, evaluate, discover, serve, query appliesTo {
    principal: Organisation,
    resource: [Dataset, Compute, Model, ModelHost, Verifier, Aggregator, Agent],
    context: Use,
};
"#;

/// The validator for [`SCHEMA`], made once.
pub(crate) static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let (schema, _warnings) =
        Schema::from_cedarschema_str(SCHEMA).expect("the schema is a constant that a test parses");
    Validator::new(schema)
});

/// Cedar's names of the entity types, in the order of [`EntityKind::ALL`].
static RESOURCE_TYPES: LazyLock<Vec<EntityTypeName>> = LazyLock::new(|| {
    EntityKind::ALL
        .into_iter()
        .map(|kind| type_name(resource_type_text(kind)))
        .collect()
});

static ORGANISATION_TYPE: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Organisation"));

static ACTIONS: LazyLock<Vec<EntityUid>> = LazyLock::new(|| {
    let action = type_name("Action");
    Verb::ALL
        .into_iter()
        .map(|verb| EntityUid::from_type_name_and_id(action.clone(), EntityId::new(verb.as_str())))
        .collect()
});

fn type_name(text: &str) -> EntityTypeName {
    text.parse().expect("names of types are constants")
}

fn resource_type_text(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::Dataset => "Dataset",
        EntityKind::Compute => "Compute",
        EntityKind::Model => "Model",
        EntityKind::ModelHost => "ModelHost",
        EntityKind::Verifier => "Verifier",
        EntityKind::Aggregator => "Aggregator",
        EntityKind::Agent => "Agent",
    }
}

/// `Action::"train"` and so on.
pub(crate) fn action(verb: Verb) -> EntityUid {
    let position = Verb::ALL.iter().position(|v| *v == verb);
    ACTIONS[position.expect("ALL holds every verb")].clone()
}

/// `Organisation::"st-mary"`.
pub(crate) fn organisation(name: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(ORGANISATION_TYPE.clone(), EntityId::new(name))
}

/// `Dataset::"dataset:st-mary/digits"` and so on.
pub(crate) fn resource(kind: EntityKind, id: &str) -> EntityUid {
    let position = EntityKind::ALL.iter().position(|k| *k == kind);
    let type_name = RESOURCE_TYPES[position.expect("ALL holds every kind")].clone();
    EntityUid::from_type_name_and_id(type_name, EntityId::new(id))
}

/// What may be meant where a literal of one of our types has an id that nothing can have.
pub(crate) fn misnamed(literal: &EntityUid) -> Option<String> {
    let (type_name, id): (_, &str) = (literal.type_name(), literal.id().as_ref());
    if *type_name == *ORGANISATION_TYPE {
        let is_name = id.parse::<OrganisationId>().is_ok();
        return (!is_name)
            .then(|| r#"Organisation::"st-mary", in small letters, digits and hyphens"#.to_owned());
    }
    let position = RESOURCE_TYPES.iter().position(|known| known == type_name)?;
    let kind = EntityKind::ALL[position];
    if id
        .parse::<ids::EntityId>()
        .is_ok_and(|entity| entity.kind == kind)
    {
        return None;
    }
    let whole = format!("{kind}:{id}");
    let meant = if whole.parse::<ids::EntityId>().is_ok() {
        whole
    } else {
        format!("{kind}:ORGANISATION/NAME")
    };
    Some(format!("{type_name}::\"{meant}\""))
}
