//! What no file may contain, and what each must.

use super::Breach;
use super::source::{Source, words};

/// A longer file asks to be split by meaning.
const MAX_LINES: usize = 500;
/// Words that put work off; written in two parts so that this file may contain them.
const PUT_OFF: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Rules for product code, its unit tests left out.
pub fn product(source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (at, text) in source.product.match_indices(".unwrap()") {
        let advice = "say with `expect` why it cannot fail, or return the error";
        breaches.push(breach(source, at, &format!("`{text}`: {advice}")));
    }
    for word in ["async", "await"] {
        for at in words(&source.product, word) {
            breaches.push(breach(source, at, &format!("`{word}`: the program is synchronous")));
        }
    }
    breaches
}

/// Rules for every file, tests included.
pub fn every_file(source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let first = source.text.lines().next().unwrap_or_default();
    if first.strip_prefix("//! ").is_none_or(|sentence| sentence.trim().is_empty()) {
        breaches.push(format!("{}:1: begins with no `//! ` sentence", source.path));
    }
    let lines = source.text.lines().count();
    if lines > MAX_LINES {
        let path = &source.path;
        breaches.push(format!("{path}: {lines} lines, over {MAX_LINES}: split it by meaning"));
    }
    for word in PUT_OFF {
        for at in words(&source.text, word) {
            breaches.push(breach(source, at, &format!("`{word}`: do it, or write it down elsewhere")));
        }
    }
    breaches
}

fn breach(source: &Source, at: usize, what: &str) -> Breach {
    format!("{}:{}: {what}", source.path, source.line_at(at))
}

#[test]
fn product_code_neither_unwraps_nor_awaits() {
    let bad = "//! X.\nfn f() { a.unwrap(); }\nasync fn g() { b.await; }\n";
    let breaches = product(&Source::new("src/x.rs", bad));
    assert_eq!(breaches.len(), 3, "{breaches:?}");
    assert!(breaches[0].starts_with("src/x.rs:2:"), "{breaches:?}");
    let good = "// a.unwrap()\nlet s = \".await\"; a.unwrap_or(1); a.await_input();\n#[cfg(test)]\nmod t { fn f() { a.unwrap(); } }";
    assert!(product(&Source::new("src/x.rs", good)).is_empty());
}

#[test]
fn every_file_says_what_it_is_and_stays_short() {
    assert!(every_file(&Source::new("a.rs", "//! Does it.\n")).is_empty());
    for bad in ["", "// Does it.\n", "//!\n", "//! \nfn f() {}\n", "use x;\n//! Does it.\n"] {
        assert_eq!(every_file(&Source::new("a.rs", bad)).len(), 1, "{bad:?}");
    }
    let long = format!("//! Does it.\n{}", "\n".repeat(MAX_LINES));
    assert_eq!(every_file(&Source::new("a.rs", &long)).len(), 1);
    let put_off = format!("//! Does it.\n// {}: later\n", PUT_OFF[0]);
    assert_eq!(every_file(&Source::new("a.rs", &put_off)).len(), 1);
}
