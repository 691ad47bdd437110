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

/// Whether a stream takes all subjects that it should, and its metadata, where it has some, names what is
/// ours.
pub(crate) fn check_stream(expected: &Value, found: &Value) -> Result<()> {
    let name = expected["name"].as_str().unwrap_or_default();
    let subjects = texts(&found["subjects"]);
    let is_taken = |ours: &str| {
        let used = used_subjects(name, ours);
        subjects.iter().any(|theirs| covers(theirs, ours) || covers(theirs, &used))
    };
    let missing: Vec<&str> =
        texts(&expected["subjects"]).into_iter().filter(|ours| !is_taken(ours)).collect();
    if !missing.is_empty() {
        let (found, missing) = (quoted(&subjects), quoted(&missing));
        return Err(Error::Foreign(format!("stream `{name}` has the subjects {found}, not {missing}")));
    }
    for (key, ours) in expected["metadata"].as_object().into_iter().flatten() {
        let theirs = &found["metadata"][key];
        if let (Some(theirs), Some(ours)) = (theirs.as_str(), ours.as_str())
            && theirs != ours
        {
            let has = match key.as_str() {
                resources::RUNS_BUCKET_KEY => "jobs of the runs in bucket",
                resources::WORK_STREAM_KEY => "the runs of the jobs in stream",
                _ => "the runs of the jobs with subjects below",
            };
            return Err(Error::Foreign(format!("stream `{name}` has {has} `{theirs}`, not `{ours}`")));
        }
    }
    Ok(())
}

/// The settings of a stream that is ours with our metadata in it; `None` when it has them, or is missing.
pub(crate) fn marked(expected: &Value, found: &Value) -> Option<Value> {
    let mut config = found.clone();
    let mut is_news = false;
    for (key, ours) in expected["metadata"].as_object()? {
        if config["metadata"][key].is_null() {
            config["metadata"][key] = ours.clone();
            is_news = true;
        }
    }
    is_news.then_some(config)
}

/// What messages have in the place of a `>`: the names of tags and of consumers are one token each, so that
/// an operator may have made the stream with `*`. Keys of a bucket and words of the audit are several.
fn used_subjects(stream: &str, ours: &str) -> String {
    let is_bucket = ours.starts_with("$KV.") || ours.starts_with("$O.");
    match ours.strip_suffix(".>") {
        Some(prefix) if !is_bucket && !stream.ends_with("AUDIT") => format!("{prefix}.*"),
        _ => ours.to_owned(),
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

/// The same for all consumers of tags among `infos`. Those that refuse pulls stop the runs of their tags
/// alone, so they are no error here, but returned.
pub(crate) fn check_tag_consumers(config: &ResourceConfig, infos: &[Value]) -> Result<Vec<Error>> {
    let mut refusing = Vec::new();
    for info in infos {
        let Some(tag) = resources::tag_of(config, info["name"].as_str().unwrap_or_default()) else {
            continue;
        };
        match check_consumer(&resources::tag_consumer(config, tag), &info["config"]) {
            Err(e @ Error::NotPullable { .. }) => refusing.push(e),
            other => other?,
        }
    }
    Ok(refusing)
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
    fn a_stream_may_have_one_token_where_no_message_has_more() {
        let config = crate::config::Config::default().resources;
        let check = |mut stream: Value| {
            let expected = stream.clone();
            let subject = stream["subjects"][0].as_str().unwrap().replace('>', "*");
            stream["subjects"] = json!([subject]);
            check_stream(&expected, &stream)
        };
        for ours in [resources::work_stream, resources::dlq_stream, resources::advisory_stream] {
            check(ours(&config)).unwrap();
        }
        for stream in [resources::audit_stream(&config), resources::runs_bucket(&config).stream] {
            assert!(matches!(check(stream), Err(Error::Foreign(_))));
        }
    }

    #[test]
    fn metadata_is_added_where_it_is_missing_and_nothing_else_changes() {
        let expected = resources::runs_bucket(&crate::config::Config::default().resources).stream;
        let found = json!({"name": "KV_pyoco_runs", "max_bytes": 7, "metadata": {"owner": "me"}});
        let config = marked(&expected, &found).unwrap();
        assert_eq!(
            config,
            json!({"name": "KV_pyoco_runs", "max_bytes": 7, "metadata": {"owner": "me",
                "pyoco_work_stream": "PYOCO_WORK", "pyoco_work_subjects": "pyoco.work"}})
        );
        assert_eq!(marked(&expected, &config), None);
        let unmarked = json!({"name": "KV_pyoco_runs"});
        assert!(marked(&expected, &unmarked).is_some());
    }

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
