//! Whether what has a name of ours in NATS is ours.
//!
//! Names alone do not say so: two installations of one account that differ in some settings only would share
//! the rest, and execute each other's jobs.

use std::time::Instant;

use serde_json::{Value, json};

use crate::bus::connection::link::Link;
use crate::bus::jetstream::{self, resources};
use crate::bus::{Error, Result, left};
use crate::config::ResourceConfig;

/// Whether a stream takes all subjects that it should, and its metadata, where it has some, names our bucket.
pub(crate) fn check_stream(expected: &Value, found: &Value) -> Result<()> {
    let name = expected["name"].as_str().unwrap_or_default();
    let subjects = texts(&found["subjects"]);
    let missing: Vec<&str> = texts(&expected["subjects"])
        .into_iter()
        .filter(|ours| !subjects.iter().any(|theirs| covers(theirs, ours)))
        .collect();
    if !missing.is_empty() {
        let (found, missing) = (quoted(&subjects), quoted(&missing));
        return Err(Error::Foreign(format!("stream `{name}` has the subjects {found}, not {missing}")));
    }
    let theirs = found["metadata"][resources::RUNS_BUCKET_KEY].as_str();
    let ours = expected["metadata"][resources::RUNS_BUCKET_KEY].as_str();
    match (theirs, ours) {
        (Some(theirs), Some(ours)) if theirs != ours => Err(Error::Foreign(format!(
            "stream `{name}` has jobs of the runs in bucket `{theirs}`, not `{ours}`"
        ))),
        _ => Ok(()),
    }
}

/// Whether a consumer delivers the jobs of its tag and no others, to those who pull.
pub(crate) fn check_consumer(expected: &Value, found: &Value) -> Result<()> {
    let name = expected["durable_name"].as_str().unwrap_or_default();
    if let Some(subject) = found["deliver_subject"].as_str().filter(|subject| !subject.is_empty()) {
        let reason = format!("it is push based and delivers to `{subject}`");
        return Err(Error::NotPullable { consumer: name.to_owned(), reason });
    }
    let Some(ours) = expected["filter_subject"].as_str() else { return Ok(()) };
    let mut filters = texts(&found["filter_subjects"]);
    filters.extend(found["filter_subject"].as_str().filter(|filter| !filter.is_empty()));
    if filters != [ours] {
        let found = quoted(&filters);
        return Err(Error::Foreign(format!("consumer `{name}` has the filter {found}, not `{ours}`")));
    }
    Ok(())
}

/// The same for all consumers of tags among `infos`.
pub(crate) fn check_tag_consumers(config: &ResourceConfig, infos: &[Value]) -> Result<()> {
    for info in infos {
        if let Some(tag) = resources::tag_of(config, info["name"].as_str().unwrap_or_default()) {
            check_consumer(&resources::tag_consumer(config, tag), &info["config"])?;
        }
    }
    Ok(())
}

/// Why a stream cannot be made whose subjects another one has.
pub(crate) fn overlap(link: &Link, config: &Value, deadline: Instant) -> Error {
    let subjects = texts(&config["subjects"]);
    let owner = subjects.iter().find_map(|subject| {
        let body = json!({"subject": subject});
        let found: Value = jetstream::call(link, "STREAM.NAMES", &body, left(deadline)).ok()?;
        found["streams"][0].as_str().map(str::to_owned)
    });
    let name = config["name"].as_str().unwrap_or_default();
    Error::Foreign(format!(
        "stream `{}` has the subjects {} of stream `{name}`",
        owner.as_deref().unwrap_or("of another name"),
        quoted(&subjects)
    ))
}

/// Whether every subject that `wanted` stands for is one that `pattern` stands for.
fn covers(pattern: &str, wanted: &str) -> bool {
    let (mut pattern, mut wanted) = (pattern.split('.'), wanted.split('.'));
    loop {
        match (pattern.next(), wanted.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn quoted(words: &[&str]) -> String {
    match words {
        [] => "none".to_owned(),
        words => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_it_stands_for() {
        for (pattern, wanted) in
            [(">", "a.>"), ("a.>", "a.>"), ("*.b", "a.b"), ("a.*.>", "a.b.>"), ("a", "a")]
        {
            assert!(covers(pattern, wanted), "{pattern} {wanted}");
        }
        for (pattern, wanted) in
            [("a.b", "a.>"), ("a.*", "a.>"), ("a.b.>", "a.>"), ("a.>", "a"), ("a", "a.b")]
        {
            assert!(!covers(pattern, wanted), "{pattern} {wanted}");
        }
    }
}
