//! Policy as the center applies it: the owner's policy of each entity and the domain's, parsed once for each text.

use crate::core::{
    Core, Who,
    turn::{Decision, Turn},
};
use daitn_messages::{
    descriptor::{Body, Descriptor},
    ids::{ArtifactId, EntityId, EntityKind, OrganisationId},
    leaf::LeafKind,
    operation::Answer,
    policy::{PolicyAnswer, PolicyQuestion, UseContext, Verb},
    rejection::Rejection,
};
use daitn_policy::{PolicySet, ResourceFacts, combine, forbids, permit_by_either};
use daitn_store::Family;
use daitn_topology::Sight;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Parsed texts that are kept. Owners share templates, so that there are far fewer texts than datasets.
const PARSED_MAX: usize = 16 * 1024;

/// Answers that are remembered: a plan of 10,000 sites asks the few texts of its owners under the few contexts of its
/// recipients, and a search asks one context of each text.
const ANSWERS_MAX: usize = 64 * 1024;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies {
    /// The domain's policy as it was set; empty: it is silent.
    pub(crate) domain_text: String,
    domain: Option<(ArtifactId, Arc<PolicySet>)>,
    /// Counts the domain's policies, so that a plan knows by which it was made.
    pub(crate) domain_version: u64,
    /// By hash of the text; none where the text does not parse, which denies.
    parsed: Arc<BTreeMap<ArtifactId, Option<Arc<PolicySet>>>>,
    /// Answers of texts for which it does not matter which entity is asked about. Named by the texts' hashes, so that
    /// no change makes one wrong.
    answers: HashMap<Asked, PolicyAnswer>,
}

/// A question to a text for which the entity does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Asked {
    text: ArtifactId,
    who: OrganisationId,
    verb: Verb,
    context: UseContext,
}

impl Policies {
    pub(crate) fn n_parsed(&self) -> usize {
        self.parsed.len()
    }

    /// Sets the domain's policy.
    pub(crate) fn set_domain(&mut self, text: String) -> Result<(), Rejection> {
        self.domain = if text.trim().is_empty() {
            None
        } else {
            let hash = ArtifactId::of(text.as_bytes());
            Some((hash, Arc::new(PolicySet::parse(&text)?)))
        };
        self.domain_text = text;
        Ok(())
    }

    /// May this organisation do this with the entity? The owner's policy must permit and the domain's must not forbid.
    /// Entities other than datasets carry no policy of their own: they are published to be used.
    pub(crate) fn permit(
        &mut self,
        who: &OrganisationId,
        verb: Verb,
        descriptor: &Descriptor,
        context: &UseContext,
    ) -> PolicyAnswer {
        let question = PolicyQuestion {
            who: who.clone(),
            verb,
            what: descriptor.entity.clone(),
            context: context.clone(),
        };
        let domain = self.domain_answer(&question, descriptor);
        let owner = match &descriptor.body {
            Body::Dataset(body) => self.owner_answer(&body.policy, &question, descriptor),
            _ => PolicyAnswer {
                allowed: true,
                determining: Vec::new(),
                errors: Vec::new(),
            },
        };
        combine(owner, domain)
    }

    /// May this organisation query the model or call the agent? An organisation may use its own models; agents are
    /// attached in order to be called. Beyond that the owner's policy (empty: none) or the domain's must permit; what
    /// either forbids is forbidden.
    pub(crate) fn may_query(
        &mut self,
        who: &OrganisationId,
        descriptor: &Descriptor,
        owner_text: &str,
    ) -> PolicyAnswer {
        let by_default =
            *who == descriptor.entity.organisation || descriptor.entity.kind == EntityKind::Agent;
        self.either(Verb::Query, (who, descriptor), owner_text, by_default)
    }

    /// May this organisation have the model served? Its own yes, unless a policy of either forbids it.
    pub(crate) fn may_serve(
        &mut self,
        who: &OrganisationId,
        descriptor: &Descriptor,
        owner_text: &str,
    ) -> PolicyAnswer {
        let by_default = *who == descriptor.entity.organisation;
        self.either(Verb::Serve, (who, descriptor), owner_text, by_default)
    }

    /// What the owner's and the domain's policy say of a verb that has no circumstances.
    fn either(
        &mut self,
        verb: Verb,
        (who, descriptor): (&OrganisationId, &Descriptor),
        owner_text: &str,
        by_default: bool,
    ) -> PolicyAnswer {
        let question = PolicyQuestion {
            who: who.clone(),
            verb,
            what: descriptor.entity.clone(),
            context: no_circumstances(),
        };
        let domain = self.domain_answer(&question, descriptor);
        let owner = (!owner_text.is_empty()).then(|| self.owner_answer(owner_text, &question, descriptor));
        permit_by_either(owner, domain, by_default)
    }

    /// Whether a policy has a say in queries of this model or agent, beyond the defaults.
    pub(crate) fn decides_queries(&self, owner_text: &str) -> bool {
        self.domain.is_some() || !owner_text.is_empty()
    }

    fn domain_answer(&mut self, question: &PolicyQuestion, descriptor: &Descriptor) -> Option<PolicyAnswer> {
        let (text, domain) = self.domain.clone()?;
        Some(self.remembered(text, &domain, question, descriptor))
    }

    fn owner_answer(
        &mut self,
        text: &str,
        question: &PolicyQuestion,
        descriptor: &Descriptor,
    ) -> PolicyAnswer {
        let (hash, parsed) = self.parsed(text);
        match parsed {
            Some(policies) => self.remembered(hash, &policies, question, descriptor),
            None => PolicyAnswer {
                allowed: false,
                determining: Vec::new(),
                errors: vec!["the owner's policy cannot be read".to_owned()],
            },
        }
    }

    /// The answer of a text, evaluated once for all entities where it does not matter which one is asked about.
    fn remembered(
        &mut self,
        text: ArtifactId,
        policies: &PolicySet,
        question: &PolicyQuestion,
        descriptor: &Descriptor,
    ) -> PolicyAnswer {
        if policies.resource_matters() {
            return policies.answer(question, &ResourceFacts::of(descriptor));
        }
        let asked = Asked {
            text,
            who: question.who.clone(),
            verb: question.verb,
            context: question.context.clone(),
        };
        if let Some(answer) = self.answers.get(&asked) {
            return answer.clone();
        }
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.clear();
        }
        let answer = policies.answer(question, &ResourceFacts::of(descriptor));
        self.answers.insert(asked, answer.clone());
        answer
    }

    /// May this organisation see that the entity exists? Its own always; another's unless a policy forbids it: whoever
    /// publishes a descriptor wants it found, so silence does not hide it.
    pub(crate) fn may_discover(&mut self, who: &Who, descriptor: &Descriptor) -> bool {
        who.is_admin || self.shown_to(&who.organisation, descriptor)
    }

    /// The same of an organisation, whatever key it is asked with.
    pub(crate) fn shown_to(&mut self, organisation: &OrganisationId, descriptor: &Descriptor) -> bool {
        if *organisation == descriptor.entity.organisation {
            return true;
        }
        let context = no_circumstances();
        !forbids(&self.permit(organisation, Verb::Discover, descriptor, &context))
    }
}

impl Policies {
    /// The same for a search: whether it holds for all entities that share the owner's text.
    pub(crate) fn sight(&mut self, who: &Who, descriptor: &Descriptor) -> Sight {
        let seen = self.may_discover(who, descriptor);
        let domain_looks = self
            .domain
            .as_ref()
            .is_some_and(|(_, domain)| domain.resource_matters());
        let owner_looks = match &descriptor.body {
            Body::Dataset(body) => self
                .parsed(&body.policy)
                .1
                .is_some_and(|policies| policies.resource_matters()),
            _ => false,
        };
        if domain_looks || owner_looks {
            Sight::OfEntity(seen)
        } else {
            Sight::OfPolicy(seen)
        }
    }

    /// What is needed to make a plan apart from the core: texts that were parsed, without the answers.
    pub(crate) fn for_planning(&self) -> Self {
        Self {
            domain_text: self.domain_text.clone(),
            domain: self.domain.clone(),
            domain_version: self.domain_version,
            parsed: self.parsed.clone(),
            answers: HashMap::new(),
        }
    }

    /// Takes over what was parsed elsewhere. Texts are known by their hashes, so that nothing of it can be wrong.
    pub(crate) fn learn_from(&mut self, other: &Self) {
        if other.parsed.len() > self.parsed.len() {
            self.parsed = other.parsed.clone();
        }
    }

    /// A text with its hash, parsed once.
    fn parsed(&mut self, text: &str) -> (ArtifactId, Option<Arc<PolicySet>>) {
        let hash = ArtifactId::of(text.as_bytes());
        if let Some(known) = self.parsed.get(&hash) {
            return (hash, known.clone());
        }
        let parsed = PolicySet::parse(text).ok().map(Arc::new);
        let texts = Arc::make_mut(&mut self.parsed);
        if texts.len() >= PARSED_MAX {
            texts.clear();
        }
        texts.insert(hash, parsed.clone());
        (hash, parsed)
    }
}

/// The circumstances of what is not training: none.
fn no_circumstances() -> UseContext {
    UseContext {
        purpose: String::new(),
        algorithm: String::new(),
        protections: Vec::new(),
        cohort: 0,
        jurisdiction: String::new(),
        recipients: Vec::new(),
    }
}

impl Core {
    pub(super) fn can(&mut self, who: &Who, question: &PolicyQuestion) -> Result<Answer, Rejection> {
        question.validate()?;
        let descriptor = self.visible(who, &question.what)?;
        // What gateways and deployments are told: queries and serving declare no circumstances.
        let text = self.models.newest_policy(&question.what);
        let answer = match (question.verb, question.what.kind) {
            (Verb::Query, EntityKind::Model | EntityKind::Agent) => {
                self.policies.may_query(&question.who, &descriptor, &text)
            }
            (Verb::Serve, EntityKind::Model) => self.policies.may_serve(&question.who, &descriptor, &text),
            (verb, _) => self
                .policies
                .permit(&question.who, verb, &descriptor, &question.context),
        };
        Ok(Answer::Policy(answer))
    }

    /// An entity that this principal may see; otherwise it looks as if it did not exist.
    pub(super) fn visible(&mut self, who: &Who, entity: &EntityId) -> Result<Arc<Descriptor>, Rejection> {
        let not_found = || Rejection::not_found(entity.kind.as_str(), entity);
        let descriptor = self.topology.get(entity).cloned().ok_or_else(not_found)?;
        if self.policies.may_discover(who, &descriptor) {
            Ok(descriptor)
        } else {
            Err(not_found())
        }
    }

    pub(super) fn set_policy(&mut self, turn: &mut Turn<'_>, text: String) -> Result<Answer, Rejection> {
        self.policies.set_domain(text)?;
        self.policies.domain_version += 1;
        let text = self.policies.domain_text.clone();
        turn.batch.put(
            Family::Meta,
            super::restore::DOMAIN_POLICY,
            &(self.policies.domain_version, &text),
        );
        let hash = ArtifactId::of(text.as_bytes());
        turn.leaf(LeafKind::Policy, &"domain", hash, [&self.config.operator]);
        let decision = Decision {
            kind: "policy",
            subject: "domain".to_owned(),
            outcome: format!(
                "version {} of the domain's policy is in force",
                self.policies.domain_version
            ),
            reasons: vec![format!("BLAKE3 of its text: {hash}")],
            ..Decision::default()
        };
        turn.decide(decision, vec![self.config.operator.clone()]);
        // Who may query is pushed to the gateways.
        self.snapshot.changed();
        self.state_changed(turn);
        self.end_what_is_forbidden(turn);
        Ok(Answer::Done {})
    }
}
