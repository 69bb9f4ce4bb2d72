//! Policy as the center applies it: the owner's policy of each entity and the domain's, parsed once for each text.

use crate::core::{
    Core, Who,
    turn::{Decision, Turn},
};
use daitn_messages::{
    descriptor::{Body, Descriptor},
    ids::{ArtifactId, EntityId, OrganisationId},
    leaf::LeafKind,
    operation::Answer,
    policy::{PolicyAnswer, PolicyQuestion, UseContext, Verb},
    rejection::Rejection,
};
use daitn_policy::{PolicySet, ResourceFacts, combine, forbids};
use daitn_store::Family;
use std::{collections::BTreeMap, sync::Arc};

/// Parsed texts that are kept. Owners share templates, so that there are far fewer texts than datasets.
const PARSED_MAX: usize = 16 * 1024;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies {
    /// The domain's policy as it was set; empty: it is silent.
    pub(crate) domain_text: String,
    domain: Option<Arc<PolicySet>>,
    /// Counts the domain's policies, so that a plan knows by which it was made.
    pub(crate) domain_version: u64,
    /// By hash of the text; none where the text does not parse, which denies.
    parsed: BTreeMap<ArtifactId, Option<Arc<PolicySet>>>,
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
            Some(Arc::new(PolicySet::parse(&text)?))
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
        let facts = ResourceFacts::of(descriptor);
        let domain = self
            .domain
            .as_ref()
            .map(|domain| domain.answer(&question, &facts));
        let owner = match &descriptor.body {
            Body::Dataset(body) => self.owner_answer(&body.policy, &question, &facts),
            _ => PolicyAnswer {
                allowed: true,
                determining: Vec::new(),
                errors: Vec::new(),
            },
        };
        combine(owner, domain)
    }

    fn owner_answer(&mut self, text: &str, question: &PolicyQuestion, facts: &ResourceFacts) -> PolicyAnswer {
        let hash = ArtifactId::of(text.as_bytes());
        if self.parsed.len() >= PARSED_MAX && !self.parsed.contains_key(&hash) {
            self.parsed.clear();
        }
        let parsed = self
            .parsed
            .entry(hash)
            .or_insert_with(|| PolicySet::parse(text).ok().map(Arc::new));
        match parsed {
            Some(policies) => policies.answer(question, facts),
            None => PolicyAnswer {
                allowed: false,
                determining: Vec::new(),
                errors: vec!["the owner's policy cannot be read".to_owned()],
            },
        }
    }

    /// May this organisation see that the entity exists? Its own always; another's unless a policy forbids it: whoever
    /// publishes a descriptor wants it found, so silence does not hide it.
    pub(crate) fn may_discover(&mut self, who: &Who, descriptor: &Descriptor) -> bool {
        if who.is_admin || who.organisation == descriptor.entity.organisation {
            return true;
        }
        let context = UseContext {
            purpose: String::new(),
            algorithm: String::new(),
            protections: Vec::new(),
            cohort: 0,
            jurisdiction: String::new(),
            recipients: Vec::new(),
        };
        !forbids(&self.permit(&who.organisation, Verb::Discover, descriptor, &context))
    }
}

impl Core {
    pub(super) fn can(&mut self, who: &Who, question: &PolicyQuestion) -> Result<Answer, Rejection> {
        let descriptor = self.visible(who, &question.what)?;
        let answer = self
            .policies
            .permit(&question.who, question.verb, &descriptor, &question.context);
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
        self.state_changed(turn);
        Ok(Answer::Done {})
    }
}
