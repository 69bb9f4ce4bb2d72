//! Describing data: what is said of a file that is not as a description needs it, and what an owner sees before others do.

use crate::lab::Lab;
use serde_json::json;

#[test]
fn columns_that_no_model_can_be_fed_from_are_left_aside_and_publishing_checks_the_data() {
    let mut lab = Lab::start();
    let data = lab.write(
        "odd.csv",
        "age,note,gap,rate,\"b\u{7}\",sick\n40,x,,nan,1,yes\n50,y,2,1,2,no\n60,z,3,2,3,no\n",
    );
    let file = lab.path("odd.toml");
    let init = [
        "data",
        "init",
        data.to_str().unwrap(),
        "--file",
        file.to_str().unwrap(),
        "--name",
        "odd",
        "--target",
        "sick",
        "--jurisdiction",
        "DE",
        "--creator",
        "owner",
    ];
    let made = lab.json(&init).data();
    let aside: Vec<(&str, &str)> = made["left_aside"]
        .as_array()
        .unwrap()
        .iter()
        .map(|left| (left["column"].as_str().unwrap(), left["why"].as_str().unwrap()))
        .collect();
    assert_eq!(
        aside,
        [
            ("note", "row 2 has a value that is no number"),
            ("gap", "no value in row 2"),
            ("rate", "NaN or infinite in row 2"),
            ("b\u{7}", "its name has control characters"),
        ]
    );
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("features = [\"age\"]") && !text.contains('\u{7}'),
        "{text}"
    );

    // A node that does not run: what it would refuse is refused now, and nothing is left in its directory.
    drop(lab.node("owner"));
    std::fs::write(&file, text.replace("[\"age\"]", "[\"age\", \"gap\"]")).unwrap();
    let publish = ["data", "publish", file.to_str().unwrap(), "--node-dir", "owner"];
    let refused = lab.json(&publish).error();
    assert!(
        refused["message"].as_str().unwrap().contains("`gap`"),
        "{refused}"
    );
    let terminals = std::fs::read_dir(lab.path("owner/terminals")).map_or(0, Iterator::count);
    assert_eq!(terminals, 0);
    std::fs::write(&file, text).unwrap();
    lab.run(&publish).ok();
}

/// `data init` of these bytes, with the name that they are given.
fn init(lab: &Lab, name: &str, csv: &str, more: &[&str]) -> crate::lab::Ran {
    let data = lab.write(&format!("{name}.csv"), csv);
    let told = [
        "data",
        "init",
        data.to_str().unwrap(),
        "--jurisdiction",
        "DE",
        "--creator",
        "x",
    ];
    lab.json(&[&told[..], more].concat())
}

#[test]
fn what_cannot_be_described_is_said_at_once_with_its_row() {
    let lab = Lab::start();
    for (name, csv, target, told) in [
        (
            "hole",
            "age,sick\n40,yes\n50,\n60,no\n",
            "sick",
            &["`sick`", "no value in row 3"][..],
        ),
        (
            "typo",
            "age,stay_days\n40,1\n50,2\n",
            "stay_day",
            &["did you mean `stay_days`?", "it has age, stay_days"],
        ),
        (
            "semicolon",
            "age;sick\n40;yes\n50;no\n",
            "sick",
            &["separated by semicolons"],
        ),
    ] {
        let refused = init(&lab, name, csv, &["--target", target]);
        let error = refused.error();
        assert_eq!((refused.code, &error["code"]), (2, &json!("E0405")), "{error}");
        let message = error["message"].as_str().unwrap();
        for part in told {
            assert!(message.contains(part), "{message}");
        }
        assert!(!lab.path(&format!("{name}.toml")).exists());
    }
    let ward = init(&lab, "ward", "age,ward\n40,a\n50,b\n60,c\n", &[]);
    assert_eq!(ward.data()["predicts"], "ward (3 classes)");
}

/// The owner decides by what is shown: it is all of it, or says how much is not shown.
#[test]
fn a_preview_names_columns_and_classes() {
    let lab = Lab::start();
    let names: Vec<String> = (0..25).map(|i| format!("c{i}")).collect();
    let rows: String = (0..30)
        .map(|i| format!("{}ward-{}\n", "1,".repeat(25), i % 3))
        .collect();
    let csv = format!("{},ward\n{rows}", names.join(","));
    init(&lab, "wide", &csv, &[]).ok();
    let preview = |more: &[&str]| {
        let asked = ["data", "preview", "wide.toml", "--organisation", "owner"];
        let shown = lab.run(&[&asked[..], more].concat()).ok();
        // It is wrapped.
        shown.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let some = preview(&[]);
    assert!(some.contains("c18, c19 and 5 more: -o wide shows them"), "{some}");
    assert!(some.contains("Classes ward-0, ward-1, ward-2"), "{some}");
    let all = preview(&["-o", "wide"]);
    assert!(all.contains(&names.join(", ")), "{all}");
}
