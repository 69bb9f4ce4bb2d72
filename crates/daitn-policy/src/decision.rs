//! How an owner's answer and the domain's answer make one decision.

use daitn_messages::policy::PolicyAnswer;

/// Whether an answer is a *no* that somebody wrote (a `forbid` that applies, or a rule that failed), not mere silence.
#[must_use]
pub fn forbids(answer: &PolicyAnswer) -> bool {
    let silent = answer.determining.is_empty() && answer.errors.is_empty();
    !answer.allowed && !silent
}

/// The effective decision: the owner's policy must permit, and the domain's policy must not forbid; it may be silent.
/// The domain's ids are marked `domain:`, so that a reader knows whose rule decided.
#[must_use]
pub fn combine(owner: PolicyAnswer, domain: Option<PolicyAnswer>) -> PolicyAnswer {
    match domain {
        Some(domain) if forbids(&domain) => PolicyAnswer {
            allowed: false,
            determining: marked(&domain.determining),
            errors: marked(&domain.errors),
        },
        _ => owner,
    }
}

/// Who may query a model or call an agent. What either policy forbids is forbidden, the domain's first; otherwise a permit
/// of either is enough; where both are silent, or there is none, the default holds.
#[must_use]
pub fn permit_by_either(
    owner: Option<PolicyAnswer>,
    domain: Option<PolicyAnswer>,
    by_default: bool,
) -> PolicyAnswer {
    let domain = domain.map(|domain| PolicyAnswer {
        determining: marked(&domain.determining),
        errors: marked(&domain.errors),
        ..domain
    });
    let said: Vec<PolicyAnswer> = [domain, owner].into_iter().flatten().collect();
    let no = said.iter().find(|answer| forbids(answer));
    let yes = said.iter().find(|answer| answer.allowed);
    no.or(yes).cloned().unwrap_or(PolicyAnswer {
        allowed: by_default,
        determining: Vec::new(),
        errors: Vec::new(),
    })
}

fn marked(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| format!("domain:{text}")).collect()
}
