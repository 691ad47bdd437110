//! The dependency ledger: each line of Cargo.toml that adds a crate says why, and the page counts them.

use std::collections::BTreeSet;
use std::process::Command;

use super::{Breach, root};

/// What lists the crates of which the programs are made; docs/architecture.md gives it, too.
const TREE: &str = "cargo tree --locked -e normal --prefix none --format {p}";

#[test]
fn the_crates_of_the_programs_are_counted() {
    let words = TREE.split(' ');
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| words.clone().next().unwrap().to_owned());
    // They are here, or this test would not have been built.
    let output = Command::new(cargo).args(words.skip(1)).arg("--offline").current_dir(root()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{TREE}: {}", String::from_utf8_lossy(&output.stderr));
    let crates = counted(&String::from_utf8(output.stdout).unwrap());
    assert!(crates > 50, "the scan has lost its crates: {crates}");

    let page = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let said = format!("**{crates} crates**");
    assert!(page.contains(&said), "docs/architecture.md does not say {said}, as `{TREE}` counts");
    assert!(page.contains(TREE), "docs/architecture.md does not give the command `{TREE}`");
}

/// The crates in a tree, each version once.
fn counted(tree: &str) -> usize {
    // A crate that comes again has a mark behind it; one of a folder has its path there.
    let names = tree.lines().map(|line| line.split(" (").next().unwrap().trim());
    names.filter(|name| !name.is_empty()).collect::<BTreeSet<_>>().len()
}

/// Each dependency has a comment of more than a word right above it.
pub fn reasons(manifest: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut in_dependencies = false;
    let mut previous = "";
    for (number, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            in_dependencies = line.trim_matches(['[', ']']).ends_with("dependencies");
        } else if in_dependencies && !line.is_empty() && !line.starts_with('#') {
            // A table that spans lines continues until its closing brace.
            let begins = line.split_once('=').is_some_and(|(name, _)| is_crate_name(name.trim()));
            let reason = previous.strip_prefix('#').unwrap_or_default().trim();
            if begins && reason.split_whitespace().count() < 2 {
                breaches
                    .push(format!("Cargo.toml:{}: `{line}` has no reason in a comment above it", number + 1));
            }
        }
        previous = line;
    }
    breaches
}

fn is_crate_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[test]
fn a_dependency_without_a_reason_is_found() {
    let good = "[dependencies]\n# Wire shapes.\nserde = \"1\"\n\n[lints.rust]\nunsafe_code = \"forbid\"\n";
    assert!(reasons(good).is_empty());
    for bad in [
        "[dependencies]\nserde = \"1\"\n",
        "[dev-dependencies]\n# serde\nserde = \"1\"\n",
        "[dependencies]\n# Wire shapes.\nserde = \"1\"\nlog = \"0.4\"\n",
        "[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n",
    ] {
        assert_eq!(reasons(bad).len(), 1, "{bad}");
    }
}

#[test]
fn a_crate_counts_once_per_version() {
    let tree = "pyoco-server v0.1.0 (/x)\na v1.0.0\nb v2.0.0 (proc-macro)\na v1.0.0 (*)\na v0.9.0\n\n";
    assert_eq!(counted(tree), 4);
}
