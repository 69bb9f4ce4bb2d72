//! `daitn data init`: looks at a file and writes the description that its owner edits: every key with what it means, and
//! a policy in words and in Cedar.

use super::super::{App, jurisdiction};
use crate::{
    failure::{Ending, Exit, Failure},
    files::absolute,
    output::Shown,
    paint::Paint,
    render::counted,
    views::target_of,
};
use clap::Args;
use daitn_engine::data::{Inspection, Kind, inspect};
use daitn_messages::{
    ids::{OrganisationId, Slug},
    rejection::{Code, Rejection},
};
use daitn_policy::OwnerPolicy;
use daitn_terminals::check_columns;
use serde::Serialize;
use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

/// A whole-number column with more values than this is not taken for the column to predict.
const CLASSES_GUESSED_MAX: usize = 100;

/// What is described, and what its owner allows.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The data: CSV with a header, or Parquet
    path: PathBuf,
    /// Write here; without it NAME.toml in the directory where the command runs
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Its name within the organisation; without it from the file's name
    #[arg(long, value_name = "NAME")]
    name: Option<Slug>,
    /// What it is, for people
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// The column that can be predicted; without it the last that could be a class
    #[arg(long, value_name = "COLUMN")]
    target: Option<String>,
    /// Labels, also such as do not occur in this file; without it those that occur
    #[arg(long, value_delimiter = ',', value_name = "LABEL")]
    classes: Vec<String>,
    /// ISO 3166-1 alpha-2 code of the law that it is under
    #[arg(long, value_name = "CODE", value_parser = jurisdiction)]
    jurisdiction: String,
    /// SPDX id or URL
    #[arg(long, default_value = "LicenseRef-ask-the-owner", value_name = "ID")]
    license: String,
    /// Who made it
    #[arg(long, value_name = "NAME")]
    creator: String,
    /// `YYYY-MM-DD`; without it today
    #[arg(long, value_name = "DATE")]
    date_published: Option<String>,
    /// Tell others the share of each class; cells under ten records are never told
    #[arg(long)]
    share_label_distribution: bool,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    policy: PolicyArguments,
}

/// The policy, by the choices that come up every day. The file holds it as Cedar, to be edited.
#[derive(Debug, Args)]
#[command(next_help_heading = "Policy")]
struct PolicyArguments {
    /// Purposes that are allowed; any if none is given
    #[arg(long, value_delimiter = ',', value_name = "WORD")]
    purpose: Vec<String>,
    /// Purposes that are never allowed
    #[arg(long, value_delimiter = ',', value_name = "WORD")]
    forbid_purpose: Vec<String>,
    /// Organisations that may ask; any if none is given
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    organisation: Vec<OrganisationId>,
    /// Fewest organisations, besides the one that asks, with work in every round, so that no update stands alone
    #[arg(long, default_value_t = 1, value_name = "N")]
    cohort_min: u32,
    /// Protections that must be in force, for instance norm-clip
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    protection: Vec<String>,
}

/// Runs it.
pub(crate) fn run(app: &App, arguments: &Arguments) -> Ending {
    // What is not there is told as everywhere, before anything is made of it.
    let data = absolute(&arguments.path)?;
    let inspection = inspect(&data).map_err(|error| {
        let rejection = Rejection::from(error);
        let message = format!("{}: {}", arguments.path.display(), rejection.message);
        Failure::from(Rejection { message, ..rejection }).into_usage()
    })?;
    let name = name(arguments)?;
    let target = target(arguments, &inspection)?;
    let task = check_columns(&target, &arguments.classes, &inspection)
        .map_err(|rejection| Failure::from(rejection).into_usage())?;
    let file = arguments
        .file
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    if file.exists() && !arguments.force {
        return Err(
            Failure::file(&file, "exists already").hint("Give another --file, or replace it with --force.")
        );
    }
    let shown = file.display().to_string();
    let text = description(arguments, &data, (&name, &target), &inspection)?;
    std::fs::write(&file, text).map_err(|error| Failure::io(&file, &error))?;
    let left_aside = left_aside(&target, &inspection);
    for left in &left_aside {
        app.output
            .say(format!("Left aside: {}: {}", left.shown(), left.why));
    }
    if !left_aside.is_empty() {
        let again = "To keep such a column, mend or leave out these rows, and run this again with --force.";
        app.output.say(again);
    }
    app.output.say(format!(
        "{}, {}. Read the policy in {shown}, then:\n  daitn data validate {shown}\n  daitn data preview {shown} --organisation NAME",
        counted(inspection.n_rows, "record"),
        counted(inspection.columns.len(), "column"),
    ));
    app.output.show(&Written {
        file,
        name,
        predicts: target_of(&target, &task),
        target,
        n_rows: inspection.n_rows,
        left_aside,
    })?;
    Ok(Exit::Done)
}

fn name(arguments: &Arguments) -> Result<Slug, Failure> {
    if let Some(name) = &arguments.name {
        return Ok(name.clone());
    }
    let stem = arguments
        .path
        .file_stem()
        .map(|stem| stem.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let slug: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    slug.trim_matches('-')
        .parse()
        .map_err(|_| Failure::usage("the file's name makes no name: give --name"))
}

fn target(arguments: &Arguments, inspection: &Inspection) -> Result<String, Failure> {
    if let Some(target) = &arguments.target {
        let column = inspection
            .named(target)
            .map_err(|error| Failure::from(Rejection::from(error)).into_usage())?;
        if column.name.chars().any(char::is_control) {
            return Err(Failure::usage(
                "the name of the column to predict has control characters: rename it in the file",
            ));
        }
        return Ok(column.name.clone());
    }
    let could_be = |column: &&daitn_engine::data::ColumnInspection| {
        column.kind != Kind::Number
            && column.not_finite.n == 0
            && !column.name.chars().any(char::is_control)
            && column
                .distinct
                .as_ref()
                .is_some_and(|d| (2..=CLASSES_GUESSED_MAX).contains(&d.len()))
    };
    inspection
        .columns
        .iter()
        .rev()
        .find(could_be)
        .map(|column| column.name.clone())
        .ok_or_else(|| Failure::usage("no column looks like a class: name the one to predict with --target"))
}

fn description(
    arguments: &Arguments,
    data: &Path,
    (name, target): (&Slug, &str),
    inspection: &Inspection,
) -> Result<String, Failure> {
    let title = arguments.title.clone().unwrap_or_else(|| name.to_string());
    let today = crate::render::date_time(crate::commands::now());
    let date = arguments
        .date_published
        .clone()
        .unwrap_or_else(|| today[..10].to_owned());
    let columns: Vec<&str> = inspection
        .columns
        .iter()
        .filter(|c| c.unfit().is_none() && c.name != target)
        .map(|c| c.name.as_str())
        .collect();
    if columns.is_empty() {
        return Err(
            Failure::usage("no column can be a feature: each holds text or lacks values")
                .hint("Features are columns of finite numbers with a value in each row."),
        );
    }
    let mut text = String::new();
    let mut key = |comment: &str, name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = write!(text, "\n# {comment}\n{name} = {value}\n");
    };
    key(
        "Its name within your organisation: a-z, 0-9 and -.",
        "name",
        quoted(name.as_str()),
    );
    key("What it is, for people.", "title", quoted(&title));
    key("More about it, for people.", "description", quoted(""));
    key(
        "The law that it is under: ISO 3166-1 alpha-2.",
        "jurisdiction",
        quoted(&arguments.jurisdiction),
    );
    key(
        "The file. Never told to anybody, and never copied.",
        "path",
        quoted(&data.to_string_lossy()),
    );
    let listed: Vec<String> = columns.iter().map(|c| quoted(c)).collect();
    let mut about =
        "Columns that may be used as features, all of them numbers. Take out what may not.".to_owned();
    for left in left_aside(target, inspection) {
        about.push_str(&format!("\n# Left aside: {}: {}.", left.shown(), left.why));
    }
    key(&about, "features", format!("[{}]", listed.join(", ")));
    key("The column that can be predicted.", "target", quoted(target));
    if !arguments.classes.is_empty() {
        let classes: Vec<String> = arguments.classes.iter().map(|c| quoted(c)).collect();
        key(
            "Its labels, also such as do not occur here.",
            "classes",
            format!("[{}]", classes.join(", ")),
        );
    }
    key(
        "SPDX id or URL of the licence.",
        "license",
        quoted(&arguments.license),
    );
    key("Who made the data.", "creator", quoted(&arguments.creator));
    key("When it was published.", "date_published", quoted(&date));
    key("Conditions of use, in words, for people.", "usage", quoted(""));
    let share = arguments.share_label_distribution.to_string();
    key(
        "Tell the share of each class? Cells under ten records are never told.",
        "share_label_distribution",
        share,
    );
    key(
        "Price in millionths of the domain's currency, for a thousand records used once.",
        "price_micros_per_thousand",
        "0".to_owned(),
    );
    let policy = cedar(&arguments.policy)?;
    let about = "Who may use it, in Cedar: the last word is yours. Your node asks this policy before every use,\n\
        # whatever the control center says. Attributes: context.purpose, context.algorithm, context.protections,\n\
        # context.cohort, context.jurisdiction, context.recipients. Try it: daitn policy test";
    key(about, "policy", format!("'''\n{}'''", policy));
    Ok(format!(
        "# A dataset that others may find and train on, where it is. Nothing of it leaves your node but what\n\
         # `daitn data preview` shows and what your policy lets a training send.\n\nkind = \"dataset\"\n{text}"
    ))
}

fn cedar(arguments: &PolicyArguments) -> Result<String, Failure> {
    let policy = OwnerPolicy {
        purposes: arguments.purpose.clone(),
        purposes_forbidden: arguments.forbid_purpose.clone(),
        organisations: arguments.organisation.clone(),
        cohort_min: arguments.cohort_min,
        protections: arguments.protection.clone(),
        ..OwnerPolicy::default()
    };
    policy.to_cedar().map_err(|error| {
        Failure {
            exit: Exit::Usage,
            ..Failure::new(Code::PolicyInvalid, error.to_string())
        }
        .hint(error.remedy())
    })
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[derive(Serialize)]
struct Written {
    file: PathBuf,
    name: Slug,
    target: String,
    /// The target and what it is: `label (10 classes)`.
    predicts: String,
    n_rows: u64,
    /// Columns that cannot be features.
    left_aside: Vec<LeftAside>,
}

/// A column that cannot be a feature.
#[derive(Serialize)]
struct LeftAside {
    column: String,
    why: String,
}

impl LeftAside {
    /// The name in quotation marks, fit for a comment and a terminal, whatever the file has in it.
    fn shown(&self) -> String {
        const CHARS_MAX: usize = 80;
        format!("{:?}", self.column.chars().take(CHARS_MAX).collect::<String>())
    }
}

fn left_aside(target: &str, inspection: &Inspection) -> Vec<LeftAside> {
    let others = inspection.columns.iter().filter(|column| column.name != target);
    let unfit = others.filter_map(|column| Some((column, column.unfit()?)));
    unfit
        .map(|(column, why)| LeftAside {
            column: column.name.clone(),
            why: why.to_string(),
        })
        .collect()
}

impl Shown for Written {
    fn human(&self, paint: Paint, _: bool) -> String {
        format!(
            "{} written: predicts {}",
            paint.name(self.file.display()),
            self.predicts
        )
    }
    fn names(&self) -> Vec<String> {
        vec![path_text(&self.file)]
    }
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}
