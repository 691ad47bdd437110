//! References to the pages from code, and from one page to another: a reader can follow each.

use std::fs;
use std::path::Path;

use super::docs::has_heading;
use super::{Breach, root};

/// Names of pages that do not exist, anchors that no heading has, and numbers of sections.
pub fn lost(path: &str, text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (at, _) in text.match_indices(".md") {
        let end = at + ".md".len();
        let after = &text[end..];
        let name = &text[start_of_name(text, at)..end];
        // `.mdx` and `a.md5` name no page, and neither does the ending alone.
        if after.starts_with(is_part_of_name) || name.starts_with('.') && name.len() == 3 {
            continue;
        }
        let anchor: &str = after.strip_prefix('#').map_or("", |rest| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').next().unwrap()
        });
        let said = format!("{path}:{}: {name}", line_at(text, at));
        match page(path, name) {
            None => breaches.push(format!("{said}: there is no such page")),
            Some(page) if !anchor.is_empty() && !has_heading(&page, anchor) => {
                breaches.push(format!("{said}#{anchor}: the page has no such heading"));
            }
            Some(_) => {}
        }
    }
    for (at, sign) in text.match_indices('\u{a7}') {
        if !is_of_an_rfc(&text[..at]) {
            breaches.push(format!(
                "{}:{}: `{sign}`: a number of a section changes; name a page and its anchor",
                path,
                line_at(text, at)
            ));
        }
    }
    breaches
}

/// The text of the page that `name` means in the file `path`: seen from the root, or from its folder.
fn page(path: &str, name: &str) -> Option<String> {
    let folder = Path::new(path).parent()?;
    [root().join(name), root().join(folder).join(name)].iter().find_map(|file| fs::read_to_string(file).ok())
}

fn start_of_name(text: &str, end: usize) -> usize {
    let name = text[..end].chars().rev().take_while(|c| is_part_of_name(*c) || "./".contains(*c));
    end - name.map(char::len_utf8).sum::<usize>()
}

fn is_part_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// An RFC does not change, so its sections may be named by number.
fn is_of_an_rfc(before: &str) -> bool {
    let mut words = before.split_whitespace().rev().filter(|word| !word.starts_with("//"));
    words.next().is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        && words.next().is_some_and(|word| word.ends_with("RFC"))
}

fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

#[test]
fn a_reference_that_leads_nowhere_is_found() {
    for good in [
        "//! See `docs/spec.md#run-snapshot` and docs/config.md.",
        "/// (`docs/spec.md#get-runsid`), and README.md.",
        "// Not `.md`, not a.mdx.",
        "// RFC 9112 \u{a7}6.1, RFC 9110\n// \u{a7} 7",
    ] {
        assert_eq!(lost("src/x.rs", good), Vec::<Breach>::new(), "{good}");
    }
    for bad in [
        "// docs/spec.md#nowhere",
        "// docs/nowhere.md",
        "# See ARCHITECTURE.md.",
        "// spec.md, which is in docs.",
        "/// As CONTRACT \u{a7}2 says.",
        "/// \u{a7}2",
    ] {
        assert_eq!(lost("src/x.rs", bad).len(), 1, "{bad}");
    }
    assert!(lost("docs/x.md", "[a](spec.md#in-nats)").is_empty(), "a page names its neighbours");
    assert_eq!(lost("docs/x.md", "[a](spec.md#nowhere)").len(), 1);
}
