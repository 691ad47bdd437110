//! Prose fits into a terminal: pages, and comments in code.

use super::Breach;

/// Longest line of prose.
const COLUMNS: usize = 110;
/// What begins a line that is a comment, by the ending of the file's name.
const COMMENTS: &[(&[&str], &[&str])] = &[
    (&["rs"], &["//"]),
    (&["js", "mjs", "css"], &["//", "/*", "* "]),
    (&["py", "sh", "toml", "yaml"], &["#"]),
    (&["html"], &["<!--"]),
];

/// Lines of a page that are too long, tables and code included.
pub fn page(path: &str, text: &str) -> Vec<Breach> {
    breaches(path, text, |_| true)
}

/// Lines of a source file that are comments and too long.
pub fn comments(path: &str, text: &str) -> Vec<Breach> {
    let ending = path.rsplit('.').next().unwrap_or_default();
    let begins: Vec<&str> = COMMENTS
        .iter()
        .filter(|(endings, _)| endings.contains(&ending))
        .flat_map(|(_, begins)| begins.iter().copied())
        .collect();
    breaches(path, text, |line| begins.iter().any(|begin| line.trim_start().starts_with(begin)))
}

fn breaches(path: &str, text: &str, counts: impl Fn(&str) -> bool) -> Vec<Breach> {
    let lines = text.lines().enumerate().filter(|(_, line)| counts(line));
    lines
        .filter(|(_, line)| width(line) > COLUMNS)
        .map(|(at, line)| {
            let columns = line.chars().count();
            format!("{path}:{}: {columns} columns, over {COLUMNS}: break the line", at + 1)
        })
        .collect()
}

/// The columns of a line. A URL cannot be broken, so it counts for nothing.
fn width(line: &str) -> usize {
    line.split(' ').map(|word| if word.contains("://") { 1 } else { word.chars().count() + 1 }).sum::<usize>()
        - 1
}

#[test]
fn a_long_line_is_found() {
    let long = "wörd ".repeat(23);
    let fits = "ö".repeat(COLUMNS);
    assert_eq!(page("README.md", &format!("{fits}\n{long}")).len(), 1);
    assert_eq!(page("README.md", &format!("```sh\n{long}\n```\n| a | {long} |")).len(), 2);
    assert_eq!(page("README.md", &format!("[a](https://x.invalid/{}) b", "y".repeat(COLUMNS))).len(), 0);
    let row = format!("| `thread` | {long} |");
    assert_eq!(page("docs/architecture.md", &row).len(), 1);

    for (path, comment) in
        [("src/a.rs", "    /// "), ("a.js", " * "), ("a.py", "# "), ("a.css", "/* "), ("a.html", "<!-- ")]
    {
        assert_eq!(comments(path, &format!("{comment}{long}")).len(), 1, "{path}");
        assert!(comments(path, &format!("{comment}short\nlet code = \"{long}\"")).is_empty(), "{path}");
    }
}
