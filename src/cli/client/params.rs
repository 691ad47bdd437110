//! The parameters of a run: file, then JSON, then single ones; the later wins.

use std::path::Path;

use serde_json::{Map, Value};

use super::usage_of;
use crate::cli::failure::Failure;

pub fn merged(
    file: Option<&Path>,
    json: Option<&str>,
    single: &[String],
) -> Result<Map<String, Value>, Failure> {
    let mut params = Map::new();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            bad(
                format!("cannot read --params-file {}: {error}", path.display()),
                "check the path and its permissions",
            )
        })?;
        params.extend(object(&format!("--params-file {}", path.display()), &text)?);
    }
    if let Some(text) = json {
        params.extend(object("--params", text)?);
    }
    for pair in single {
        let (key, value) = pair.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
            bad(
                format!("--param must be KEY=VALUE, not {pair:?}"),
                "for example: pyoco-client submit --param x=1 --param name=alice",
            )
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        params.insert(key.to_owned(), value);
    }
    Ok(params)
}

fn object(source: &str, text: &str) -> Result<Map<String, Value>, Failure> {
    let hint = "write a JSON object, for example --params '{\"x\": 1}'";
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(bad(format!("{source} is JSON but no object"), hint)),
        Err(error) => Err(bad(format!("{source} is no JSON object: {error}"), hint)),
    }
}

fn bad(reason: String, hint: &str) -> Failure {
    Failure::usage(reason, usage_of("submit"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_later_wins() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"a": 1, "b": 1, "c": 1}"#).unwrap();
        let single: Vec<String> = ["c=3", "d=true", "e=x y", "f=", "g=a=b", "h=\"1\"", "i=[1,{}]", "j=1x"]
            .map(str::to_owned)
            .into();
        let params = merged(Some(file.path()), Some(r#"{"b": {"deep": 2}, "c": 2}"#), &single);
        assert_eq!(
            Value::Object(params.unwrap()),
            json!({"a": 1, "b": {"deep": 2}, "c": 3, "d": true, "e": "x y", "f": "", "g": "a=b",
                "h": "1", "i": [1, {}], "j": "1x"})
        );
        assert!(merged(None, None, &[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_object_is_refused_with_its_source() {
        for (json, single, why) in [
            (Some("[1]"), None, "--params is JSON but no object"),
            (Some("{x"), None, "--params is no JSON object"),
            (None, Some("novalue"), "novalue"),
            (None, Some("=1"), "KEY=VALUE"),
        ] {
            let single: Vec<String> = single.map(str::to_owned).into_iter().collect();
            let failure = merged(None, json, &single).unwrap_err();
            assert!(failure.reason.contains(why), "{}", failure.reason);
        }
        let failure = merged(Some(Path::new("/nonexistent")), None, &[]).unwrap_err();
        assert!(failure.reason.contains("/nonexistent"), "{}", failure.reason);
        assert!(failure.usage.unwrap().starts_with("pyoco-client submit"));
    }
}
