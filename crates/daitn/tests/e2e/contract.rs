//! The contract with scripts: what is printed where, the envelope, the exit codes, the codes' pages.

use crate::lab::{DAITN, Lab, Ran, attach, ran};
use serde_json::{Value, json};
use std::process::Command;

/// A command of somebody who has no domain.
fn nobody(arguments: &[&str]) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    ran(Command::new(DAITN)
        .args(arguments)
        .env("DAITN_CONFIG_DIR", directory.path())
        .env_remove("DAITN_URL")
        .env_remove("DAITN_CONTEXT")
        .env("NO_COLOR", "1"))
}

#[test]
fn usage_errors_end_with_2() {
    for arguments in [
        &["no-such-noun"][..],
        &["job", "plan"],
        &["job", "plan", "/no/such/file"],
        &["job", "list"],
        &["context", "use", "nowhere"],
        &["job", "get", "not-a-job"],
        &["token", "create", "--organisation", "Not A Slug"],
        &["explain", "job-01arz3ndektsv4rrffq69g5fav"],
        &["status", "--timeout", "5"],
        &["search", "--limit", "0"],
    ] {
        let found = nobody(arguments);
        assert_eq!(found.code, 2, "{arguments:?}: {}{}", found.stdout, found.stderr);
        assert_eq!(
            found.stdout, "",
            "{arguments:?}: standard output holds results only"
        );
        let error = nobody(&[arguments, &["-o", "json"]].concat()).error();
        assert!(
            error["code"].is_string() && error["message"].is_string(),
            "{arguments:?}: {error}"
        );
        assert_eq!(
            error["docs"],
            format!("daitn help {}", error["code"].as_str().unwrap())
        );
    }
}

#[test]
fn no_connection_ends_with_3() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let found = nobody(&["--url", &url, "status", "-o", "json"]);
    assert_eq!(found.code, 3);
    assert_eq!(found.error()["code"], "E0206");
}

#[test]
fn no_answer_ends_with_4() {
    // Connections are taken by the kernel, and nobody answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let found = nobody(&["--url", &url, "status", "--timeout", "200ms", "-o", "json"]);
    assert_eq!((found.code, &found.error()["code"]), (4, &json!("E0407")));
}

#[test]
fn every_code_has_a_page() {
    let pages = nobody(&["help", "-o", "json"]).data();
    for page in pages.as_array().unwrap() {
        let code = page["code"].as_str().unwrap();
        let shown = nobody(&["help", code]).ok().stdout;
        assert!(
            shown.contains(code) && shown.contains(page["page"].as_str().unwrap()),
            "{shown}"
        );
    }
    assert_eq!(nobody(&["help", "E9999"]).code, 2);
    assert!(
        nobody(&["help", "job", "plan"])
            .ok()
            .stdout
            .contains("nothing moves")
    );
}

/// Every command that is listed has help that parses, and completion knows it.
#[test]
fn what_is_listed_exists() {
    let help = nobody(&["--help"]).ok().stdout;
    let nouns: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            line.strip_prefix("  ")?
                .split(' ')
                .next()
                .filter(|noun| !noun.is_empty())
        })
        .collect();
    assert!(nouns.len() > 12, "{nouns:?}");
    let script = nobody(&["completion", "bash"]).ok().stdout;
    for noun in nouns {
        nobody(&[noun, "--help"]).ok();
        assert!(script.contains(noun));
        // Whatever is wrong with a command line, who asks for JSON gets it.
        let error = nobody(&[noun, "--no-such-flag", "-o", "json"]).error();
        assert_eq!(error["code"], "E0101", "{noun}: {error}");
    }
    assert!(!help.contains("demo-agent"), "hidden");
}

#[test]
fn results_come_in_every_format_and_errors_of_the_network_with_their_codes() {
    let lab = Lab::start();
    let status = lab.json(&["status"]).data();
    assert_eq!(
        (status["domain"].as_str(), status["nodes"].as_u64()),
        (Some("local"), Some(0))
    );
    assert_eq!(lab.run(&["status", "-o", "name"]).ok().stdout, "local\n");
    assert!(
        lab.run(&["status", "-o", "yaml"])
            .ok()
            .stdout
            .contains("domain: local")
    );
    let lines = lab.run(&["node", "list", "-o", "jsonl"]).ok().stdout;
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["terminal"], true);

    // Nothing on standard output, so that it can be redirected into a file, and a word on why.
    let policy = lab.run(&["policy", "get"]).ok();
    assert_eq!(policy.stdout.trim(), "");
    assert!(policy.stderr.contains("daitn policy set"), "{}", policy.stderr);

    let missing = lab.json(&["job", "get", "job-01arz3ndektsv4rrffq69g5fav"]);
    assert_eq!((missing.code, &missing.error()["code"]), (1, &json!("E0104")));
    let stranger = ran(lab
        .command(&["status", "-o", "json"])
        .env("DAITN_API_KEY", "wrong"));
    assert_eq!((stranger.code, &stranger.error()["code"]), (3, &json!("E0701")));

    // A key that may only read may not make tokens.
    let key = lab
        .run(&["key", "create", "--organisation", "reader", "--scopes", "read"])
        .ok()
        .stdout;
    let refused = ran(lab
        .command(&["token", "list", "-o", "json"])
        .env("DAITN_API_KEY", key.trim()));
    assert_eq!((refused.code, &refused.error()["code"]), (3, &json!("E0702")));
    assert!(
        !lab.run(&["key", "list"]).ok().stdout.contains(key.trim()),
        "a secret is shown once"
    );
    let contexts = lab.run(&["context", "list", "-o", "json"]).ok().stdout;
    assert!(!contexts.contains("api_key") && contexts.contains("\"has_key\": true"));
}

#[test]
fn destructive_verbs_ask_for_yes_and_never_prompt() {
    let lab = Lab::start();
    let key = lab
        .json(&["key", "create", "--organisation", "app", "--scopes", "query"])
        .data();
    let id = key["key"].as_str().unwrap();
    let refused = lab.json(&["key", "revoke", id]);
    assert_eq!(
        (refused.code, refused.error()["hint"].as_str()),
        (2, Some("Add --yes if you mean it."))
    );
    lab.run(&["key", "revoke", id, "--yes"]).ok();
    let keys = lab.json(&["key", "list"]).data();
    let listed = keys.as_array().unwrap().iter().find(|k| k["key"] == id).unwrap();
    assert_eq!(listed["revoked"], true);
}

#[test]
fn a_state_directory_has_one_process_and_its_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::start();
    let second = lab.json(&[
        "up",
        "--dir",
        "center",
        "--listen",
        "127.0.0.1:0",
        "--fabric-listen",
        "127.0.0.1:0",
    ]);
    assert_eq!((second.code, &second.error()["code"]), (5, &json!("E0106")));
    let mut n_keys = 0;
    for directory in ["center", "config"] {
        for entry in std::fs::read_dir(lab.path(directory)).unwrap().flatten() {
            let (path, mode) = (entry.path(), entry.metadata().unwrap().permissions().mode());
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(".key") || name == "contexts.toml" {
                n_keys += 1;
                assert_eq!(mode & 0o777, 0o600, "{name}");
            }
        }
    }
    assert!(n_keys >= 4, "center, gateway, admin and contexts");
}

/// What a command tells the reader to type next is complete.
#[test]
fn the_next_command_is_printed_in_full() {
    let mut lab = Lab::start();
    let token = lab.token("works", &[]);
    let joined = lab
        .run(&[
            "node",
            "join",
            &token,
            "--dir",
            "works",
            "--listen",
            "127.0.0.1:0",
        ])
        .ok();
    assert!(
        joined.stderr.contains("daitn node run --dir works"),
        "{}",
        joined.stderr
    );
    let attached = lab.run(&attach("aggregator", "combiner", "works")).ok().stdout;
    assert!(attached.ends_with("daitn node run --dir works\n"), "{attached}");
    lab.run_node("works");
    lab.online();
    let job = "job-01arz3ndektsv4rrffq69g5fav";
    let hint = |arguments: &[&str]| lab.json(arguments).error()["hint"].as_str().unwrap().to_owned();
    assert!(hint(&["explain", job]).contains(&format!("daitn job explain {job}")));
    assert!(hint(&["job", "get", job]).contains("daitn job list"));
    assert!(hint(&["model", "get", "digits"]).contains("daitn model list"));
    assert!(hint(&["model", "query", "digits", "--row", "1"]).contains("daitn model list"));
    // Whose it is and which version need not be known to look it up.
    assert_eq!(
        hint(&["model", "query", "model:works/digits@2"]),
        "What it takes: daitn model get digits"
    );
    let both = ["model", "query", "digits", "--row", "1", "--file", "rows.csv"];
    let both = lab.json(&both).error()["message"].to_string();
    assert!(both.contains("cannot be used with"), "{both}");
    assert!(hint(&["model", "rollback", "digits"]).contains("--yes"));
    let rollback = lab.json(&["model", "rollback", "digits"]).error()["message"].to_string();
    assert!(!rollback.contains("cannot be undone"), "{rollback}");
}

#[test]
fn a_file_that_is_not_there_is_the_same_failure_everywhere() {
    for arguments in [
        &["data", "init", "no.csv", "--jurisdiction", "DE", "--creator", "x"][..],
        &["data", "validate", "no.toml"],
        &["data", "preview", "no.toml", "--organisation", "x"],
        &["job", "plan", "no.toml"],
        &["job", "run", "no.toml"],
        &["policy", "set", "no.cedar", "--yes"],
        &["policy", "test", "no.cedar"],
        &["node", "join", "@no.token", "--dir", "x"],
        &["context", "add", "x", "--url", "https://x", "--ca-file", "no.pem"],
        &["doctor", "--against", "@no.token"],
        &["up", "--config", "no.toml"],
    ] {
        let found = nobody(&[arguments, &["-o", "json"]].concat());
        assert_eq!(
            (found.code, &found.error()["code"]),
            (2, &json!("E0104")),
            "{arguments:?}"
        );
    }
}

/// What somebody wrote by hand and misspelt would be another training.
#[test]
fn a_misspelt_field_is_refused_with_its_place_and_the_name_that_was_meant() {
    let request = json!({
        "model": "digits", "organisation": "works", "jurisdiction": "DE", "purpose": "research",
        "architecture": { "kind": "linear" }, "features": ["x"], "target": "y", "task": { "kind": "regression" },
        "training": { "rounds": 1, "local": { "epochs": 1, "batch_size": 8, "learning_rate": 0.1, "seed": 1 } },
        "verification": { "metric": "rmse", "target": 1.0, "required": 1 },
    });
    let directory = tempfile::tempdir().unwrap();
    for (pointer, from, to, told) in [
        (
            "/verification",
            "metric",
            "metirc",
            &[
                "field `verification`: ",
                "missing field `metric`",
                "; is `verification.metirc` meant to be it?",
            ][..],
        ),
        (
            "/training",
            "",
            "quroum",
            &["there is no field `training.quroum`; did you mean `training.quorum`?"],
        ),
    ] {
        let mut misspelt = request.clone();
        let here = misspelt.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
        let value = here.remove(from).unwrap_or(json!(1));
        here.insert(to.to_owned(), value);
        for (name, text) in [
            ("request.toml", toml::to_string(&misspelt).unwrap()),
            ("request.json", misspelt.to_string()),
        ] {
            let file = directory.path().join(name);
            std::fs::write(&file, text).unwrap();
            let found = nobody(&["job", "plan", file.to_str().unwrap(), "-o", "json"]);
            let error = found.error();
            assert_eq!((found.code, &error["code"]), (2, &json!("E0101")), "{error}");
            let message = error["message"].as_str().unwrap();
            // Between them the reader of the format says in which line it is.
            for part in told {
                assert!(message.contains(part), "{name}: {message}");
            }
        }
    }
}

/// A file that somebody may have edited is not replaced by the way.
#[test]
fn a_file_that_is_there_is_replaced_only_with_force() {
    let mut lab = Lab::start();
    lab.node("st-mary").dataset(0..100, &[]).run();
    lab.online();
    let data = lab.write("few.csv", &crate::lab::rows(0..100));
    let data_init = [
        "data",
        "init",
        data.to_str().unwrap(),
        "--file",
        "made.toml",
        "--jurisdiction",
        "DE",
        "--creator",
        "x",
    ];
    let job_init = [
        "job",
        "init",
        "digits",
        "--target",
        "label",
        "--organisation",
        "x",
        "--jurisdiction",
        "DE",
        "--purpose",
        "research",
        "--file",
        "made.toml",
    ];
    for (arguments, makes) in [
        (&data_init[..], "kind = \"dataset\""),
        (&job_init, "purpose = \"research\""),
    ] {
        let file = lab.write("made.toml", "edited by hand");
        let refused = lab.json(arguments);
        assert_eq!((refused.code, &refused.error()["code"]), (2, &json!("E0101")));
        assert!(refused.error()["hint"].as_str().unwrap().contains("--force"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "edited by hand");
        lab.run(&[arguments, &["--force"]].concat()).ok();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(makes), "{text}");
        // Where nothing is there, nothing has to be forced.
        std::fs::remove_file(&file).unwrap();
        lab.run(arguments).ok();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
}

/// It fails if and only if something that it looked at does not work.
#[test]
fn the_doctor_fails_with_its_checks() {
    let found = nobody(&["doctor", "-o", "json"]);
    assert_eq!(found.code, 1);
    let findings: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(findings["data"][0]["mark"], "FAIL", "{findings}");
    let lab = Lab::start();
    let well = lab.json(&["doctor"]).data();
    assert!(
        well.as_array().unwrap().iter().all(|f| f["mark"] != "FAIL"),
        "{well}"
    );
    // A key that may not read is worth a word, and nothing fails by it.
    let key = lab
        .run(&["key", "create", "--organisation", "app", "--scopes", "query"])
        .ok()
        .stdout;
    let warned = ran(lab
        .command(&["doctor", "-o", "json"])
        .env("DAITN_API_KEY", key.trim()));
    assert!(
        warned
            .data()
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["mark"] == "WARN")
    );
}

#[test]
fn what_is_not_told_is_not_shown_as_nothing() {
    let lab = Lab::start();
    // Fifty digits: no class has ten records.
    let data = lab.write("few.csv", &crate::lab::rows(0..50));
    let description = [
        "data",
        "init",
        data.to_str().unwrap(),
        "--file",
        "few.toml",
        "--jurisdiction",
        "DE",
        "--creator",
        "x",
    ];
    lab.run(
        &[
            &description[..],
            &["--target", "label", "--share-label-distribution"],
        ]
        .concat(),
    )
    .ok();
    let card = lab
        .run(&["data", "preview", "few.toml", "--organisation", "x"])
        .ok()
        .stdout;
    assert!(card.contains("not told") && !card.contains("0.0 %"), "{card}");
}
