//! What a wheel lacks before an upload (`docs/contract.md#check-before-an-upload`): rules over its contents.

use super::archive::Contents;
use crate::model::wheel::{Metadata, WheelName, normalized};

/// Characters of a description that count as documentation.
const USAGE_DOC_CHARS: usize = 80;
/// Labels of a `Project-URL`, in lower case, that count as documentation.
const USAGE_DOC_LABELS: [&str; 4] = ["documentation", "docs", "doc", "usage"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub kind: Kind,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A worker, or pip, would refuse the wheel.
    Unusable,
    /// Only a user who knows the modules finds its tasks.
    NoEntryPoints,
    /// It does not say what its tasks do.
    NoUsageDoc,
    /// It has no word for a list; never more than a warning.
    NoSummary,
}

impl Kind {
    pub fn way_out(self) -> &'static str {
        match self {
            Kind::Unusable => "build the wheel anew, and leave the name of its file as it is",
            Kind::NoEntryPoints => {
                "name the tasks under [project.entry-points] in pyproject.toml, or pass \
                 --allow-no-entry-points"
            }
            Kind::NoUsageDoc => {
                "set `readme` or [project.urls] Documentation in pyproject.toml, or pass \
                 --allow-missing-usage-doc"
            }
            Kind::NoSummary => "set `description` in pyproject.toml",
        }
    }
}

/// Everything that a wheel of that file name lacks; an error of `contents` says why nothing was read.
pub fn findings(file_name: &str, contents: &Result<Contents, String>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |kind: Kind, text: String| found.push(Finding { kind, text });
    let name = WheelName::parse(file_name)
        .inspect_err(|error| add(Kind::Unusable, format!("the name of the file is {error}")))
        .ok();
    let contents = match contents {
        Ok(contents) => contents,
        Err(reason) => {
            add(Kind::Unusable, reason.clone());
            return found;
        }
    };
    if let Some(name) = name.as_ref().filter(|name| !is_stem_of(&contents.stem, name)) {
        let text = format!(
            "the folder {}.dist-info is not that of {} {}, which the name of the file promises",
            contents.stem, name.package, name.version
        );
        add(Kind::Unusable, text);
    }
    match &contents.metadata {
        None => add(Kind::Unusable, "METADATA is missing".to_owned()),
        Some(Err(reason)) => add(Kind::Unusable, reason.clone()),
        Some(Ok(text)) => check_metadata(&Metadata::parse(text), name.as_ref(), &mut add),
    }
    if !contents.has_record {
        add(Kind::Unusable, "RECORD is missing".to_owned());
    }
    match &contents.entry_points {
        Some(Err(reason)) => add(Kind::Unusable, reason.clone()),
        Some(Ok(text)) if has_entry_points(text) => {}
        _ => add(Kind::NoEntryPoints, "entry points are missing (entry_points.txt names none)".to_owned()),
    }
    found
}

fn check_metadata(metadata: &Metadata, name: Option<&WheelName>, add: &mut impl FnMut(Kind, String)) {
    type Field = (&'static str, fn(&WheelName, &str) -> bool, fn(&WheelName) -> String);
    let fields: [Field; 2] = [
        ("Name", |name, given| normalized(given) == name.package, |name| name.package.clone()),
        ("Version", WheelName::is_version, |name| name.version.to_string()),
    ];
    for (field, agrees, promised) in fields {
        let Some(given) = metadata.get(field) else {
            add(Kind::Unusable, format!("METADATA has no {field}"));
            continue;
        };
        if let Some(name) = name.filter(|name| !agrees(name, given)) {
            let promised = promised(name);
            let text = format!("METADATA has the {field} {given}, and the name of the file {promised}");
            add(Kind::Unusable, text);
        }
    }
    if !has_usage_doc(metadata) {
        let text = format!(
            "usage documentation is missing (METADATA needs a description of {USAGE_DOC_CHARS} \
             characters, or a Project-URL labelled Documentation)"
        );
        add(Kind::NoUsageDoc, text);
    }
    if metadata.get("Summary").is_none() {
        add(Kind::NoSummary, "METADATA has no Summary".to_owned());
    }
}

/// Whether `package-version` is what the file name says, however both are written.
fn is_stem_of(stem: &str, name: &WheelName) -> bool {
    stem.rsplit_once('-').is_some_and(|(package, version)| name.is_of(package, version))
}

fn has_usage_doc(metadata: &Metadata) -> bool {
    let is_doc = |url: &str| {
        let (label, address) = url.split_once(',').unwrap_or((url, ""));
        USAGE_DOC_LABELS.contains(&label.trim().to_ascii_lowercase().as_str()) && !address.trim().is_empty()
    };
    metadata.description().trim().chars().count() >= USAGE_DOC_CHARS
        || metadata.all("Project-URL").any(is_doc)
}

/// Whether an `entry_points.txt` names something: `name = object` below a `[group]`.
fn has_entry_points(text: &str) -> bool {
    let mut in_group = false;
    text.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            in_group = line.len() > 2 && line.ends_with(']');
            return false;
        }
        let is_comment = line.starts_with(['#', ';']);
        let pair = line.split_once('=').map(|(name, object)| (name.trim(), object.trim()));
        in_group && !is_comment && pair.is_some_and(|(n, object)| !n.is_empty() && !object.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "My_Tasks-1.0-py3-none-any.whl";
    const METADATA: &str = "Metadata-Version: 2.1\nName: my.tasks\nVersion: 1.0.0\nSummary: s\n\
        Project-URL: Docs, https://docs\n";

    fn good() -> Contents {
        Contents {
            stem: "my_tasks-1.0".to_owned(),
            metadata: Some(Ok(METADATA.to_owned())),
            entry_points: Some(Ok("# x\n[pyoco.tasks]\na = b:c\n".to_owned())),
            has_record: true,
        }
    }

    fn with_metadata(text: &str) -> Contents {
        Contents { metadata: Some(Ok(text.to_owned())), ..good() }
    }

    fn found(contents: Contents) -> Vec<(Kind, String)> {
        let all = findings(NAME, &Ok(contents)).into_iter();
        all.map(|finding| (finding.kind, finding.text)).collect()
    }

    #[test]
    fn a_good_wheel_lacks_nothing() {
        assert_eq!(found(good()), []);
        let described =
            format!("Name: My-Tasks\nVersion: 1.0\nSummary: s\n\n{}", "é".repeat(USAGE_DOC_CHARS));
        assert_eq!(found(with_metadata(&described)), []);
    }

    #[test]
    fn what_makes_a_wheel_unusable_is_named() {
        let unusable = |contents: Contents| -> Vec<String> {
            let all = found(contents).into_iter();
            all.filter(|(kind, _)| *kind == Kind::Unusable).map(|(_, text)| text).collect()
        };
        assert_eq!(unusable(Contents { metadata: None, ..good() }), ["METADATA is missing"]);
        assert_eq!(unusable(Contents { has_record: false, ..good() }), ["RECORD is missing"]);
        assert_eq!(
            unusable(with_metadata("Metadata-Version: 2.1\n")),
            ["METADATA has no Name", "METADATA has no Version"]
        );
        assert_eq!(
            unusable(with_metadata("Name: other\nVersion: 2.0\n")),
            [
                "METADATA has the Name other, and the name of the file my-tasks",
                "METADATA has the Version 2.0, and the name of the file 1.0"
            ]
        );
        assert_eq!(
            unusable(Contents { stem: "my_tasks-1.1".to_owned(), ..good() }),
            ["the folder my_tasks-1.1.dist-info is not that of my-tasks 1.0, which the name of the \
              file promises"]
        );
        let unreadable = || Some(Err("cannot read x".to_owned()));
        assert_eq!(unusable(Contents { metadata: unreadable(), ..good() }), ["cannot read x"]);
        assert_eq!(unusable(Contents { entry_points: unreadable(), ..good() }), ["cannot read x"]);
    }

    #[test]
    fn a_bad_file_name_and_a_bad_archive_are_both_told() {
        let all = findings("tasks.zip", &Err("no zip".to_owned()));
        let texts: Vec<&str> = all.iter().map(|finding| finding.text.as_str()).collect();
        assert_eq!(
            texts,
            ["the name of the file is not a file name such as package-1.0-py3-none-any.whl", "no zip"]
        );
        // What the name would say is then not compared.
        assert_eq!(findings("tasks.zip", &Ok(good())).len(), 1);
    }

    #[test]
    fn entry_points_stand_in_groups() {
        for (text, is_there) in [
            ("[a]\nx = y", true),
            ("\n[a]\n[b]\r\nx=y:z [extra]\r\n", true),
            ("", false),
            ("x = y", false),
            ("[a]\n", false),
            ("[a]\n# x = y\n; x = y\n", false),
            ("[a]\nx =\n= y\nx\n", false),
        ] {
            assert_eq!(has_entry_points(text), is_there, "{text:?}");
        }
        let missing = found(Contents { entry_points: None, ..good() });
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].0, Kind::NoEntryPoints);
    }

    #[test]
    fn documentation_is_a_description_or_a_labelled_url() {
        for (text, is_there) in [
            ("Project-URL: DOCUMENTATION , https://x", true),
            ("Project-URL: Home, https://x\nProject-URL: usage, https://x", true),
            ("Project-URL: User Docs, https://x", false),
            ("Project-URL: Docs", false),
            ("Home-page: https://docs", false),
            ("", false),
        ] {
            assert_eq!(has_usage_doc(&Metadata::parse(text)), is_there, "{text:?}");
        }
        let described = |count: usize| Metadata::parse(&format!("A: b\n\n{}\n", "d".repeat(count)));
        assert!(has_usage_doc(&described(80)) && !has_usage_doc(&described(79)));
        let poor = found(with_metadata("Name: my-tasks\nVersion: 1.0\n"));
        let kinds: Vec<Kind> = poor.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Kind::NoUsageDoc, Kind::NoSummary]);
    }
}
