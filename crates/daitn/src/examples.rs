//! An example for the help of each command. In one place, so that they tell one story, the tutorial's; a test reads each
//! of them as the command line.

use clap::Command;

/// A command, and an example of it.
const EXAMPLES: &[(&str, &str)] = &[
    ("demo", "daitn demo --keep"),
    ("up", "daitn up --dir center --announce 192.0.2.7:8471"),
    (
        "token create",
        "daitn token create --organisation st-mary > st-mary.token",
    ),
    ("token list", "daitn token list"),
    ("token revoke", "daitn token revoke TOKEN --yes"),
    (
        "key create",
        "daitn key create --organisation app --scopes query > app.key",
    ),
    ("key list", "daitn key list -o json"),
    ("key revoke", "daitn key revoke KEY --yes"),
    ("node join", "daitn node join @st-mary.token --dir st-mary"),
    (
        "node run",
        "daitn node run --dir st-mary --metrics-listen 127.0.0.1:9464",
    ),
    (
        "node attach",
        "daitn node attach verifier judge --jurisdiction DE --path hold-out.csv --target label --node-dir works",
    ),
    (
        "node detach",
        "daitn node detach verifier judge --node-dir works --yes",
    ),
    ("node list", "daitn node list -o wide"),
    ("node get", "daitn node get st-mary"),
    ("node drain", "daitn node drain st-mary"),
    ("node revoke", "daitn node revoke st-mary --yes"),
    (
        "data init",
        "daitn data init digits.csv --file digits.toml --target label --jurisdiction DE --creator st-mary",
    ),
    ("data validate", "daitn data validate digits.toml"),
    (
        "data preview",
        "daitn data preview digits.toml --organisation st-mary",
    ),
    (
        "data publish",
        "daitn data publish digits.toml --node-dir st-mary",
    ),
    (
        "data withdraw",
        "daitn data withdraw digits --node-dir st-mary --yes",
    ),
    ("data list", "daitn data list"),
    ("data get", "daitn data get st-mary/digits"),
    (
        "job init",
        "daitn job init digits --target label --organisation uni-lake --jurisdiction CH --purpose research --file job.toml",
    ),
    ("job plan", "daitn job plan job.toml"),
    (
        "job apply",
        "daitn job apply plan-01jd5v3x8n2c4t6y9w1z7k0m3p --idempotency-key monday",
    ),
    ("job run", "daitn job run job.toml"),
    ("job list", "daitn job list"),
    ("job get", "daitn job get job-01jd5v3x8n2c4t6y9w1z7k0m3p"),
    (
        "job watch",
        "daitn job watch job-01jd5v3x8n2c4t6y9w1z7k0m3p -o jsonl",
    ),
    ("job stop", "daitn job stop job-01jd5v3x8n2c4t6y9w1z7k0m3p --yes"),
    ("job explain", "daitn job explain job-01jd5v3x8n2c4t6y9w1z7k0m3p"),
    ("model list", "daitn model list"),
    ("model get", "daitn model get digits"),
    ("model deployments", "daitn model deployments"),
    ("model deploy", "daitn model deploy digits@2 --replicas 2"),
    (
        "model stop",
        "daitn model stop dep-01jd5v3x8n2c4t6y9w1z7k0m3p --yes",
    ),
    ("model rollback", "daitn model rollback digits --yes"),
    ("model query", "daitn model query digits --file hold-out.csv"),
    (
        "agent register",
        "daitn agent register reader http://127.0.0.1:9000 --jurisdiction DE --node-dir works",
    ),
    ("agent list", "daitn agent list"),
    ("agent get", "daitn agent get works/reader"),
    ("agent call", "daitn agent call works/reader Hello"),
    ("search", "daitn search --kind dataset --target label"),
    ("policy get", "daitn policy get"),
    ("policy set", "daitn policy set domain.cedar --yes"),
    (
        "policy test",
        "daitn policy test owner.cedar --who uni-lake --what dataset:st-mary/digits --purpose commercial",
    ),
    (
        "policy can",
        "daitn policy can uni-lake train dataset:st-mary/digits --purpose research",
    ),
    ("explain", "daitn explain dec-01jd5v3x8n2c4t6y9w1z7k0m3p"),
    ("status", "daitn status --wait 30s --nodes 3"),
    ("doctor", "daitn doctor --against @st-mary.token"),
    (
        "context add",
        "daitn context add work --url https://ai.example.org --key @work.key",
    ),
    ("context use", "daitn context use work"),
    ("context remove", "daitn context remove work --yes"),
    ("context list", "daitn context list"),
    ("help", "daitn help E0302"),
    (
        "completion",
        "daitn completion bash > ~/.local/share/bash-completion/completions/daitn",
    ),
];

/// The command tree, with an example in the help of each command.
pub(crate) fn with_examples(root: Command) -> Command {
    EXAMPLES.iter().fold(root, |root, (path, example)| {
        let words: Vec<&str> = path.split(' ').collect();
        shown(root, &words, example)
    })
}

fn shown(command: Command, path: &[&str], example: &str) -> Command {
    match path.split_first() {
        None => command.after_help(format!("Example:\n  {}", in_lines(example))),
        Some((first, rest)) => command.mut_subcommands(|sub| {
            if sub.get_name() == *first {
                shown(sub, rest, example)
            } else {
                sub
            }
        }),
    }
}

/// A command in lines that fit a terminal and can be copied together.
fn in_lines(example: &str) -> String {
    /// Narrower than what help is wrapped at, so that it is broken here and not there.
    const WIDTH_MAX: usize = 78;
    let (mut text, mut width) = (String::new(), 0);
    for word in example.split(' ') {
        if width > 0 && width + word.len() > WIDTH_MAX {
            text.push_str(" \\\n      ");
            width = 4;
        } else if width > 0 {
            text.push(' ');
        }
        text.push_str(word);
        width += word.len() + 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{command, parse_from};

    /// Commands that do something themselves, by their words.
    fn leaves(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let path = format!("{path} {}", sub.get_name()).trim().to_owned();
            if sub.has_subcommands() {
                leaves(sub, &path, found);
            } else {
                found.push((path, sub.clone()));
            }
        }
    }

    #[test]
    fn every_command_has_an_example_that_is_understood() {
        let mut found = Vec::new();
        leaves(&command(), "", &mut found);
        assert_eq!(found.len(), EXAMPLES.len(), "one for each");
        for (path, mut command) in found {
            let help = command.render_help().to_string();
            let (_, example) = EXAMPLES.iter().find(|(p, _)| *p == path).expect(&path);
            assert!(help.contains(&in_lines(example)), "{path}: {help}");
            assert_eq!(in_lines(example).replace(" \\\n      ", " "), *example);
            assert!(command.get_about().is_some(), "{path} says what it does");
            let line = example.split(" > ").next().unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            assert!(line.starts_with(&format!("daitn {path}")), "{example}");
            assert!(
                parse_from(&words).is_ok(),
                "{example}: {:?}",
                parse_from(&words).err()
            );
        }
    }
}
