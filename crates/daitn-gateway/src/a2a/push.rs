//! Push notifications, which are not offered. With them a client has the agent send to an address of the client's
//! choosing: an agent that stands inside an organisation, behind a node that only dials out, would be made to call
//! whatever is beside it (server-side request forgery). As long as the network does not deliver notifications itself,
//! every request that asks for them is refused, whoever wrote the agent and however it reads its requests.

use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::{borrow::Cow, fmt};

/// Where a message asks for notifications: `params.configuration.taskPushNotificationConfig`, or by the name that it
/// had before A2A 1.0. Compared as lenient readers do, without case and underscores.
const PATH: [&[&str]; 3] = [
    &["params"],
    &["configuration"],
    &["taskpushnotificationconfig", "pushnotificationconfig"],
];
/// What every method that manages notifications has in its name.
const METHOD: &str = "pushnotificationconfig";

/// Whether a JSON-RPC request asks for notifications, or may: what this reader cannot read to the end, an agent's more
/// lenient one may (an unpaired surrogate, a number out of range).
pub(super) fn is_asked_for(method: &str, body: &[u8]) -> bool {
    plain(method).contains(METHOD)
        || Within(&PATH)
            .deserialize(&mut serde_json::Deserializer::from_slice(body))
            .unwrap_or(true)
}

fn plain(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Looks for a member that is not null, along a path of names; every one of several with a name is followed.
struct Within<'a>(&'a [&'a [&'a str]]);

impl<'de> DeserializeSeed<'de> for Within<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let Some((names, rest)) = self.0.split_first() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(true);
        };
        let mut found = false;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if names.contains(&plain(&name).as_str()) {
                found |= map.next_value_seed(Within(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.0.is_empty())
    }
    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(self.0.is_empty())
    }
    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(self.0.is_empty())
    }
    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(self.0.is_empty())
    }
    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(self.0.is_empty())
    }
    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(self.0.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: &str, params: &str, expected: bool) {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        assert_eq!(is_asked_for(method, body.as_bytes()), expected, "{body}");
    }

    #[test]
    fn however_it_is_written_it_is_found() {
        let hook = r#"{"url":"http://169.254.169.254/latest/meta-data"}"#;
        for name in [
            "taskPushNotificationConfig",
            "task_push_notification_config",
            "pushNotificationConfig",
            "TASKPUSHNOTIFICATIONCONFIG",
            r"task\u0050ushNotificationConfig",
        ] {
            check(
                "SendMessage",
                &format!(r#"{{"configuration":{{"{name}":{hook}}}}}"#),
                true,
            );
        }
        // A second member of the same name, of which readers take the first or the last.
        let twice =
            format!(r#"{{"configuration":{{"taskPushNotificationConfig":{hook}}},"configuration":{{}}}}"#);
        check("SendStreamingMessage", &twice, true);
        check("CreateTaskPushNotificationConfig", "{}", true);
        check("tasks/pushNotificationConfig/set", "{}", true);
        check(
            "SendMessage",
            r#"{"configuration":{"taskPushNotificationConfig":"x"}}"#,
            true,
        );
    }

    #[test]
    fn what_only_speaks_of_it_is_not_refused() {
        for params in [
            "{}",
            "null",
            "[1,2]",
            r#"{"configuration":null}"#,
            r#"{"configuration":{"taskPushNotificationConfig":null}}"#,
            r#"{"configuration":{"historyLength":3}}"#,
            r#"{"message":{"parts":[{"data":{"taskPushNotificationConfig":{"url":"x"}}}]}}"#,
        ] {
            check("SendMessage", params, false);
        }
    }

    /// serde_json passes over text that it is not asked for more leniently than it reads it.
    #[test]
    fn what_cannot_be_read_to_the_end_is_taken_for_it() {
        let hook = r#""configuration":{"taskPushNotificationConfig":{"url":"http://169.254.169.254/"}}"#;
        check("SendMessage", &format!(r#"{{{hook},"\ud800":0}}"#), true);
        check(
            "SendMessage",
            &format!(r#"{{{hook},"CONFIGURATION":1e999}}"#),
            true,
        );
        assert!(is_asked_for("SendMessage", b"no json"));
    }
}
