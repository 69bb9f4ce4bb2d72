//! Refusals and failures as they travel: a stable code, what happened and why, what to do next.
//!
//! A `Rejection` is what a user, a peer or a job's record sees. Inside a crate errors are ordinary enums; they turn
//! into a `Rejection` where they leave it. `daitn help CODE` prints a code's page.

use crate::ids::DecisionId;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $title:literal, $page:literal;)*) => {
        /// A stable code. The first two digits are the area: 01 messages, 02 joining, 03 policy and planning,
        /// 04 jobs, 05 models and inference, 06 agents, 07 access to the API, 09 internal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)*
        }
        // By hand: deriving does not see through the macro to the names on the wire.
        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for Code {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::schema::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some("A stable code; `daitn help CODE` prints its page"))
                    .enum_values(Some([$($code),*]))
                    .into()
            }
        }
        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for Code {}
        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The code as printed: `E0302`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),* }
            }
            /// One line.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }
            /// What it means and what to do, as `daitn help CODE` prints it.
            #[must_use]
            pub fn page(self) -> &'static str {
                match self { $(Self::$variant => $page),* }
            }
        }
    };
}

codes! {
    /// A message, file or field is not what it should be.
    Malformed = "E0101", "malformed input", "A message, file or field does not have the form that is documented for it. The error names the field and what was found. Nothing was changed. Correct the input and send it again.";
    /// Over a bound.
    TooLarge = "E0102", "input too large", "The input is over a fixed bound, which the error names. Nothing was changed. Split the input or reduce it.";
    /// A number outside its range.
    OutOfRange = "E0103", "value out of range", "A number lies outside the range that the error names. Nothing was changed. Give one within it and send it again.";
    /// No such thing.
    NotFound = "E0104", "not found", "Nothing with this name exists, or you may not see it. `daitn search` and the `list` of each kind of thing show what there is, for instance `daitn job list`; a file's path counts from where the command runs.";
    /// A signature that does not verify.
    BadSignature = "E0105", "signature does not verify", "A signed message was changed on its way or was signed with another key. If it repeats, compare the key of the control center with the one in your join token.";
    /// It exists already with other content.
    Conflict = "E0106", "conflict", "The thing exists already with other content, or the state moved since you looked. Fetch it again and repeat.";
    /// The protocol versions do not meet.
    VersionMismatch = "E0201", "protocol versions do not fit", "The node and the control center speak no common protocol version. Upgrade the older one; both builds are named in the error.";
    /// Token unknown, spent, expired or revoked.
    TokenInvalid = "E0202", "join token not valid", "The join token is unknown, spent, expired or revoked. Ask the operator for a new one: `daitn token create`.";
    /// Clocks too far apart.
    ClockSkew = "E0203", "clocks differ too much", "The clocks of the node and the control center differ by more than five minutes, so signatures cannot be dated. Set the node's clock (NTP) and join again.";
    /// The node is not enrolled or was revoked.
    NotEnrolled = "E0204", "node not enrolled", "The control center does not know this node's key, or it was revoked. Join with a new token.";
    /// A terminal that the token does not allow.
    TerminalNotAllowed = "E0205", "terminal not allowed by the token", "The join token allows other kinds of terminal than this node attaches. Ask the operator for a token with the kinds needed.";
    /// No answer from the other side.
    Unreachable = "E0206", "cannot be reached", "No connection could be made. `daitn doctor` checks name resolution, UDP, the relay, the clock and the versions, and names what fails.";
    /// A policy forbids it.
    PolicyForbids = "E0301", "forbidden by policy", "A policy of the owner or of the domain forbids this use; the error names the determining policies, or says that none permits it. `daitn policy can` asks beforehand. Ask the owner or the operator, or change the purpose, algorithm or protections.";
    /// No feasible plan.
    Infeasible = "E0302", "infeasible", "No plan meets the request. The verdict names the binding constraints and the nearest request that would be feasible.";
    /// The plan was made from a state that has moved.
    StalePlan = "E0303", "plan is stale", "The network has changed since the plan was made, or it has expired. Plan again and apply the new plan.";
    /// An empty or unreadable policy.
    PolicyInvalid = "E0304", "policy not valid", "The policy is empty or does not parse or does not fit the schema. A dataset without a valid policy is not published.";
    /// The job was stopped.
    Stopped = "E0401", "stopped on request", "Somebody with the right to do so stopped the job or deployment.";
    /// Too few sites answered.
    QuorumMissed = "E0402", "too few sites answered", "Fewer sites than the quorum gave a valid update before the round's deadline. The job's record names each site and its reason: `daitn job get JOB`. Nodes that are offline are started again; data that changed after it was described is published again by its owner (`daitn data publish`). Then plan again: `daitn job plan FILE`.";
    /// An update that is not admitted.
    UpdateRefused = "E0403", "update not admitted", "A site's update has a wrong shape, a wrong round, too many bytes or a number that is not finite, and was left out of the round; the others go on. The job's record names the site, and the log of its node has the rest.";
    /// An order of an older epoch.
    StaleEpoch = "E0404", "order of an older epoch", "The control center has replaced this order by a newer one. Nothing is to be done.";
    /// Data that cannot be used.
    DataUnusable = "E0405", "data cannot be used", "A dataset cannot be read or trained on as the model needs it. Its owner is told row and column by `daitn data validate` and in the log of the node; others are not.";
    /// Verification did not reach the target.
    NotVerified = "E0406", "model not verified", "Fewer verification units than required found the model to reach its target. It is not registered or deployed. The job's record holds what was found: `daitn job get JOB`. A learning rate that does not fit is a common reason: try ten times and a tenth of `training.local.learning_rate` (`job init --learning-rate`), and `scale` and `offset` that bring the inputs near 0 to 1 (`--scale`, `--offset`). More rounds, more data or another architecture may reach it too, or the target asks for more than there is in the data.";
    /// A deadline passed.
    DeadlinePassed = "E0407", "deadline passed", "The work did not end within its deadline. Ask for more time, fewer rounds or more sites.";
    /// A node was lost and could not be replaced.
    NodeLost = "E0408", "node lost", "A node that the work needs did not come back and no other can take its place. `daitn node list` shows which are offline. Start it again, or plan again with those that are there.";
    /// The numbers of a training left what can be computed with.
    Diverged = "E0409", "training diverged", "The loss or a weight grew until it was no finite number any more. The data may be sound. Ask again with a lower `training.local.learning_rate` (`job init --learning-rate`), for instance a tenth of it, or with `scale` and `offset` that bring the inputs near 0 to 1 (`--scale`); with a server optimiser such as FedAdam, with a lower rate of the server's.";
    /// The model is not served.
    ModelUnavailable = "E0501", "model not available", "No ready replica serves this model. `daitn model get NAME` shows its deployment.";
    /// Tensors that do not fit the model.
    BadTensor = "E0502", "tensor does not fit the model", "The input's name, datatype, shape or size is not what the model takes. GET /v2/models/NAME tells what it takes.";
    /// Not the hash that was promised.
    HashMismatch = "E0503", "content does not match its hash", "Bytes that were received do not have the hash they were announced with and were thrown away. They are asked for again. Where it repeats, the disk or the memory of the node that sends them is at fault, or somebody changes them on the way.";
    /// The queue is full.
    Overloaded = "E0504", "overloaded", "A bounded queue is full. Try again after the time in Retry-After.";
    /// The agent did not answer as it should.
    AgentFailed = "E0601", "agent did not answer as it should", "The agent behind the node could not be reached, broke off, or answered with something that is not A2A or is longer than the gateway lets through; the error says which. `daitn agent get` shows whose it is and whether its node is online.";
    /// No or bad credentials.
    Unauthenticated = "E0701", "not authenticated", "The request carries no API key, or one that is unknown or revoked. Send `Authorization: Bearer KEY`.";
    /// The key lacks the scope.
    Unauthorised = "E0702", "not allowed", "The API key does not have the scope that this needs. Ask for a key with the scope that the error names.";
    /// The control center does not answer.
    ControlUnavailable = "E0703", "control center not available", "The gateway cannot reach the control center. Queries to deployed models go on; other calls must be repeated later.";
    /// A bug or a broken machine.
    Internal = "E0901", "internal error", "This is a fault of the program or the machine. The log holds its cause. Please report it.";
    /// The disk, or a file on it.
    Storage = "E0902", "disk or file unusable", "A disk is full, read-only or failing, or a file on it was damaged or changed by somebody else. The error names the file and what to do. Nothing is acknowledged that was not written.";
}

/// A refusal or failure, as told to whoever asked and as kept in records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rejection {
    /// The stable code.
    pub code: Code,
    /// What happened and why.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// The decision record that explains it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionId>,
    /// Ids of the policies that determined it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
}

impl Rejection {
    /// A rejection with a message; the hint is the code's page unless set by [`Self::with_hint`].
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: String::new(),
            decision: None,
            policies: Vec::new(),
        }
    }
    /// Says what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
    /// Names the decision record.
    #[must_use]
    pub fn with_decision(mut self, decision: DecisionId) -> Self {
        self.decision = Some(decision);
        self
    }
    /// `what` is malformed for this reason.
    #[must_use]
    pub fn malformed(what: &str, why: &str) -> Self {
        Self::new(Code::Malformed, format!("{what}: {why}"))
    }
    /// `what` is over its bound.
    #[must_use]
    pub fn too_large(what: &str, found: u64, max: u64) -> Self {
        Self::new(
            Code::TooLarge,
            format!("{what}: {found} is over the bound of {max}"),
        )
    }
    /// `what` is outside its range.
    #[must_use]
    pub fn out_of_range(what: &str, found: f64, min: f64, max: f64) -> Self {
        Self::new(
            Code::OutOfRange,
            format!("{what}: {found} is outside {min} to {max}"),
        )
    }
    /// There is no such thing.
    #[must_use]
    pub fn not_found(kind: &str, id: impl fmt::Display) -> Self {
        let missing = Self::new(
            Code::NotFound,
            format!("there is no {kind} `{id}` that you may see"),
        );
        match listing(kind) {
            Some(command) => missing.with_hint(format!("`{command}` shows what there is.")),
            None => missing,
        }
    }
    /// The hint, or the code's page where none was given.
    #[must_use]
    pub fn hint_or_page(&self) -> &str {
        if self.hint.is_empty() {
            self.code.page()
        } else {
            &self.hint
        }
    }
}

/// The command that lists things of a kind.
fn listing(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "agent" => "daitn agent list",
        "aggregator" | "compute" | "entity" | "model-host" | "verifier" => "daitn search",
        "API key" => "daitn key list",
        "dataset" => "daitn data list",
        "deployment" => "daitn model deployments",
        "job" => "daitn job list",
        "join token" => "daitn token list",
        "model" => "daitn model list",
        "node" => "daitn node list",
        _ => return None,
    })
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_found_says_where_to_look() {
        let hint = |kind: &str| Rejection::not_found(kind, "x").hint;
        assert_eq!(hint("model"), "`daitn model list` shows what there is.");
        assert_eq!(hint("join token"), "`daitn token list` shows what there is.");
        // The page of the code stands in where no command lists such things.
        assert_eq!(hint("accepted order for"), "");
    }
}
