//! The words in which schemas are written: one function per kind of value.
//!
//! Objects stay open: readers ignore fields that they do not know, and a snapshot keeps those of
//! other writers.

use serde_json::{Value, json};

pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

pub(super) fn described(about: &str, mut schema: Value) -> Value {
    schema["description"] = about.into();
    schema
}

/// An object of which `required` are always there.
pub(super) fn object(about: &str, required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "description": about, "required": required, "properties": properties})
}

pub(super) fn map_of(about: &str, values: Value) -> Value {
    json!({"type": "object", "description": about, "additionalProperties": values})
}

pub(super) fn list_of(about: &str, items: Value) -> Value {
    json!({"type": "array", "description": about, "items": items})
}

pub(super) fn text(about: &str) -> Value {
    json!({"type": "string", "description": about})
}

pub(super) fn flag(about: &str) -> Value {
    json!({"type": "boolean", "description": about})
}

pub(super) fn count(about: &str) -> Value {
    json!({"type": "integer", "minimum": 0, "description": about})
}

/// Unix seconds with a fraction.
pub(super) fn time(about: &str) -> Value {
    json!({"type": "number", "description": format!("{about}, unix seconds")})
}

pub(super) fn anything(about: &str) -> Value {
    json!({"description": about})
}

pub(super) fn word(about: &str, words: &[&str]) -> Value {
    json!({"type": "string", "enum": words, "description": about})
}

/// One of these words usually; others are taken, too.
pub(super) fn usual_word(about: &str, words: &[&str]) -> Value {
    json!({"anyOf": [{"type": "string", "enum": words}, {"type": "string"}], "description": about})
}

/// An integer within `(least, most, default)`.
pub(super) fn bounded(about: &str, (least, most, default): (i64, i64, i64)) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most, "default": default, "description": about})
}

/// The same, or null where nothing is known.
pub(super) fn or_null(mut schema: Value) -> Value {
    let kind = schema.get("type").cloned();
    match (kind, schema.get_mut("anyOf").and_then(Value::as_array_mut)) {
        (Some(kind), _) => schema["type"] = json!([kind, "null"]),
        (None, Some(choices)) => choices.push(json!({"type": "null"})),
        (None, None) => schema = json!({"anyOf": [schema, {"type": "null"}]}),
    }
    if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_allowed_wherever_it_is_asked_for() {
        let plain = or_null(word("", &["a"]));
        assert_eq!((&plain["type"], &plain["enum"]), (&json!(["string", "null"]), &json!(["a", null])));
        let null = json!({"type": "null"});
        assert_eq!(or_null(usual_word("", &["a"]))["anyOf"][2], null);
        assert_eq!(or_null(reference("A"))["anyOf"], json!([reference("A"), {"type": "null"}]));
    }
}
