//! The texts of the dashboard: the same ones in both languages, and each that is used is there.

use std::collections::BTreeMap;

use crate::browser::folder;

fn asset(name: &str) -> String {
    let folder = folder().join("../../src/gateway/page/assets");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// Name and text of each line `"name": "text",`.
fn texts(lang: &str) -> BTreeMap<String, String> {
    let file = asset(&format!("texts.{lang}.js"));
    let lines = file.lines().filter_map(|line| line.trim().strip_suffix(','));
    lines
        .map(|line| {
            let (name, text) = line.split_once("\": \"").expect(line);
            (name.trim_start_matches('"').to_owned(), text.trim_end_matches('"').to_owned())
        })
        .collect()
}

/// The places of a text that are filled in.
fn places(text: &str) -> Vec<&str> {
    let mut found: Vec<&str> = text.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
    found.sort_unstable();
    found
}

/// The names in `t("name")` and ``t(`name.${part}`)``.
fn calls(script: &str) -> Vec<&str> {
    let is_ours = |at: usize| {
        let before = script[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.')
    };
    let found = script.match_indices("t(").filter(|(at, _)| is_ours(*at));
    found
        .filter_map(|(at, _)| {
            let argument = &script[at + 2..];
            let quote = argument.chars().next().filter(|c| "\"`".contains(*c))?;
            argument[1..].split(quote).next()
        })
        .collect()
}

#[test]
fn both_languages_say_the_same_things() {
    let (english, japanese) = (texts("en"), texts("ja"));
    assert!(english.len() > 100);
    assert!(english.keys().eq(japanese.keys()), "the names differ");
    for (name, text) in &english {
        assert_eq!(places(text), places(&japanese[name]), "{name}");
        assert!(!text.is_empty() && !japanese[name].is_empty(), "{name}");
    }
}

#[test]
fn every_text_that_is_used_is_there() {
    let known = texts("en");
    let folder = folder().join("../../src/gateway/page/assets");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("texts.") || !name.ends_with(".js") {
            continue;
        }
        let script = asset(&name);
        for name_of_text in calls(&script) {
            // Of a name that is put together, some text must begin so.
            let found = match name_of_text.split_once('$') {
                Some((start, _)) => known.keys().any(|text| text.starts_with(start)),
                None => known.contains_key(name_of_text),
            };
            assert!(found, "{name}: {name_of_text}");
            seen += 1;
        }
    }
    assert!(seen > 100, "the scan has lost its texts: {seen}");
}
