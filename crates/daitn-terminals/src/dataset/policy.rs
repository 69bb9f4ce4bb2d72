//! The owner's policy at the owner's node: the last judge. What cannot be read denies.

use super::DatasetOptions;
use daitn_messages::{
    ids::ArtifactId,
    limits::POLICY_BYTES_MAX,
    policy::PolicyQuestion,
    rejection::{Code, Rejection},
};
use daitn_policy::{PolicySet, ResourceFacts};
use std::{
    fs::File,
    io::Read,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

/// Where the policy is.
#[derive(Debug, Clone)]
enum Source {
    Text(String),
    File(PathBuf),
}

/// The policy of one dataset.
#[derive(Debug)]
pub(super) struct OwnPolicy {
    source: Source,
    /// The newest text that parsed: parsing and validating takes a millisecond.
    parsed: Mutex<Option<(ArtifactId, Arc<PolicySet>)>>,
}

impl OwnPolicy {
    /// The policy that the options name.
    ///
    /// # Errors
    /// If there is none, or two.
    pub(super) fn of(options: &DatasetOptions) -> Result<Self, Rejection> {
        let invalid = |message: &str| Err(Rejection::new(Code::PolicyInvalid, message));
        let source = match (&options.policy, &options.policy_file) {
            (Some(text), None) => Source::Text(text.clone()),
            (None, Some(path)) => Source::File(path.clone()),
            (None, None) => return invalid("a dataset needs a `policy` or a `policy_file`"),
            (Some(_), Some(_)) => return invalid("give `policy` or `policy_file`, not both"),
        };
        Ok(Self {
            source,
            parsed: Mutex::new(None),
        })
    }

    /// The text as it is now. Blocks.
    ///
    /// # Errors
    /// If it cannot be read or is too long.
    pub(super) fn text(&self) -> Result<String, Rejection> {
        match &self.source {
            Source::Text(text) => Ok(text.clone()),
            Source::File(path) => {
                let invalid =
                    |cause: String| Rejection::new(Code::PolicyInvalid, format!("the policy file: {cause}"));
                let file = File::open(path).map_err(|error| invalid(error.to_string()))?;
                let mut text = String::new();
                let read = file.take(POLICY_BYTES_MAX as u64 + 1).read_to_string(&mut text);
                read.map_err(|error| invalid(error.to_string()))?;
                if text.len() > POLICY_BYTES_MAX {
                    return Err(invalid(format!("over the bound of {POLICY_BYTES_MAX} bytes")));
                }
                Ok(text)
            }
        }
    }

    /// The rules as they are now. Blocks.
    ///
    /// # Errors
    /// If the text cannot be read or is no policy.
    pub(super) fn rules(&self) -> Result<Arc<PolicySet>, Rejection> {
        let text = self.text()?;
        let hash = ArtifactId::of(text.as_bytes());
        let parsed = || self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, rules)) = parsed().as_ref().filter(|(known, _)| *known == hash) {
            return Ok(rules.clone());
        }
        let rules = PolicySet::parse(&text).map_err(|error| {
            let rejection = Rejection::from(error);
            // Its lines are counted from its own first one, wherever it stands in a file.
            let message = format!("in the text of the owner's policy, {}", rejection.message);
            Rejection { message, ..rejection }
        })?;
        let rules = Arc::new(rules);
        *parsed() = Some((hash, rules.clone()));
        Ok(rules)
    }

    /// Whether the newest text that was read is this one.
    #[must_use]
    pub(super) fn is(&self, text: &str) -> bool {
        let parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        parsed
            .as_ref()
            .is_some_and(|(hash, _)| *hash == ArtifactId::of(text.as_bytes()))
    }

    /// Asks the policy as it is now; the ids of the rules that permit. Blocks.
    ///
    /// # Errors
    /// [`Code::PolicyForbids`] with the rules that forbid, [`Code::PolicyInvalid`] where there is no readable policy.
    pub(super) fn ask(
        &self,
        question: &PolicyQuestion,
        facts: &ResourceFacts,
    ) -> Result<Vec<String>, Rejection> {
        let answer = self.rules()?.answer(question, facts);
        if answer.allowed {
            return Ok(answer.determining);
        }
        let who = format!(
            "{} may not {} with {}",
            question.who, question.verb, question.what
        );
        let why = match (answer.determining.is_empty(), answer.errors.first()) {
            (_, Some(error)) => format!("the owner's policy could not be evaluated: {error}"),
            (false, None) => format!("the owner's policy forbids it: {}", answer.determining.join(", ")),
            (true, None) => "no rule of the owner's policy permits it".to_owned(),
        };
        let mut rejection = Rejection::new(Code::PolicyForbids, format!("{who}: {why}"));
        rejection.policies = answer.determining;
        Err(rejection)
    }
}
