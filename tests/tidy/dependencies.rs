//! The dependency ledger: each line of Cargo.toml that adds a crate says why.

use super::Breach;

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
                breaches.push(format!(
                    "Cargo.toml:{}: `{line}` has no reason in a comment above it",
                    number + 1
                ));
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
    let good =
        "[dependencies]\n# Wire shapes.\nserde = \"1\"\n\n[lints.rust]\nunsafe_code = \"forbid\"\n";
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
