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

fn marked(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| format!("domain:{text}")).collect()
}
