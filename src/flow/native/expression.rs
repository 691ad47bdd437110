//! Expressions in task inputs: `$node.a.output`, `$ctx.params.k`, `$env.K`.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::model::limits::{MAX_DOCUMENT_DEPTH, MAX_EXPRESSION_BYTES};

/// Reads one environment variable; the worker decides which ones it gives away at all.
pub type Environment = fn(&str) -> Option<String>;

/// Variables that hold this program's own settings and secrets; no flow may read them.
const OWN_PREFIX: &str = "PYOCO_";
/// What a value weighs beside its text.
const VALUE_BYTES: usize = size_of::<Value>();

pub(super) struct Scope<'a> {
    /// Node name → its output, once it has succeeded.
    pub outputs: &'a HashMap<String, Value>,
    pub has_node: &'a dyn Fn(&str) -> bool,
    pub params: &'a Map<String, Value>,
    pub expose_env: &'a [String],
    pub environment: Environment,
}

/// What a run may still copy by expressions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget(usize);

impl Budget {
    pub fn new() -> Self {
        Budget(MAX_EXPRESSION_BYTES)
    }

    fn spend(&mut self, value: &Value) -> Result<(), String> {
        self.0 = self.0.checked_sub(weight(value)).ok_or_else(|| {
            format!(
                "expressions of this run copy more than {} MiB; pass a path or a key instead of the data",
                MAX_EXPRESSION_BYTES >> 20
            )
        })?;
        Ok(())
    }
}

/// Replaces every text that is an expression, at any depth. A text is one when it begins with `$`;
/// `$$` at the beginning stands for a plain `$`. The value keeps its type.
pub(super) fn resolve_inputs(
    inputs: &Map<String, Value>,
    scope: &Scope,
    budget: &mut Budget,
) -> Result<Map<String, Value>, String> {
    inputs
        .iter()
        .map(|(name, value)| {
            let resolved = resolve(value, scope, budget, MAX_DOCUMENT_DEPTH)
                .map_err(|problem| format!("input `{name}`: {problem}"))?;
            Ok((name.clone(), resolved))
        })
        .collect()
}

fn resolve(value: &Value, scope: &Scope, budget: &mut Budget, depth: usize) -> Result<Value, String> {
    let Some(below) = depth.checked_sub(1) else { return Err("nested too deeply".to_owned()) };
    match value {
        Value::String(text) => match text.strip_prefix('$') {
            None => Ok(value.clone()),
            Some(plain) if plain.starts_with('$') => Ok(Value::from(plain)),
            Some(selector) => {
                let found = select(text, selector, scope)?;
                if height(&found) > below {
                    return Err(format!("`{text}` is nested too deeply"));
                }
                budget.spend(&found)?;
                Ok(found.into_owned())
            }
        },
        Value::Array(items) => items.iter().map(|item| resolve(item, scope, budget, below)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| Ok((key.clone(), resolve(value, scope, budget, below)?)))
            .collect::<Result<Map<_, _>, String>>()
            .map(Value::Object),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(value.clone()),
    }
}

type Found<'a> = std::borrow::Cow<'a, Value>;

fn select<'a>(text: &str, selector: &str, scope: &'a Scope) -> Result<Found<'a>, String> {
    if let Some(rest) = selector.strip_prefix("node.") {
        return node_output(text, rest, scope);
    }
    if let Some(key) = selector.strip_prefix("ctx.params.") {
        // Pyoco takes the whole rest for the name; a path is what it cannot be otherwise.
        if let Some(value) = scope.params.get(key) {
            return Ok(Found::Borrowed(value));
        }
        let end = key.find(['.', '[']).unwrap_or(key.len());
        let value = scope
            .params
            .get(&key[..end])
            .ok_or_else(|| format!("`{text}`: the run has no parameter `{}`", &key[..end]))?;
        return walk(text, value, &key[end..]).map(Found::Borrowed);
    }
    if let Some(name) = selector.strip_prefix("env.") {
        return variable(text, name, scope).map(|value| Found::Owned(Value::String(value)));
    }
    Err(format!(
        "`{text}` is no expression: use $node.<name>.output[.<field>], $ctx.params.<name> or $env.<NAME>, \
         and $$ for text that begins with a dollar sign"
    ))
}

fn node_output<'a>(text: &str, rest: &str, scope: &'a Scope) -> Result<Found<'a>, String> {
    const OUTPUT: &str = ".output";
    let mut named = None;
    // Names may have dots: the first `.output` behind the name of a node is the one meant.
    for (at, _) in rest.match_indices(OUTPUT) {
        let (name, path) = (&rest[..at], &rest[at + OUTPUT.len()..]);
        if !(path.is_empty() || path.starts_with(['.', '['])) {
            continue;
        }
        if let Some(output) = scope.outputs.get(name) {
            return walk(text, output, path).map(Found::Borrowed);
        }
        if (scope.has_node)(name) {
            return Err(format!(
                "`{text}`: task `{name}` has not succeeded before this one; draw an edge from it"
            ));
        }
        named = named.or(Some(name));
    }
    Err(match named {
        Some(name) => format!("`{text}`: the graph has no task `{name}`"),
        None => format!("`{text}`: expected $node.<name>.output[.<field>]"),
    })
}

fn variable(text: &str, name: &str, scope: &Scope) -> Result<String, String> {
    if name.starts_with(OWN_PREFIX) {
        return Err(format!("`{text}`: variables that begin with {OWN_PREFIX} are not for flows"));
    }
    if !scope.expose_env.iter().any(|exposed| exposed == name) {
        return Err(format!("`{text}`: `{name}` is not exposed; add it to runtime.expose_env"));
    }
    (scope.environment)(name)
        .ok_or_else(|| format!("`{text}`: environment variable `{name}` is not set on this worker"))
}

/// Follows `.field`, `.0` and `[0]`.
fn walk<'a>(text: &str, from: &'a Value, path: &str) -> Result<&'a Value, String> {
    let mut at = from;
    let mut rest = path;
    while !rest.is_empty() {
        let (step, after) = if let Some(inner) = rest.strip_prefix('[') {
            let Some((index, after)) = inner.split_once(']') else {
                return Err(format!("`{text}`: `[` without `]`"));
            };
            (index, after)
        } else if let Some(inner) = rest.strip_prefix('.') {
            inner.split_at(inner.find(['.', '[']).unwrap_or(inner.len()))
        } else {
            return Err(format!("`{text}`: expected `.` or `[` before `{rest}`"));
        };
        let next = match at {
            Value::Object(fields) => fields.get(step),
            Value::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        at = next.ok_or_else(|| match at {
            Value::Object(_) => format!("`{text}`: there is no field `{step}`"),
            Value::Array(items) => {
                format!("`{text}`: there is no item `{step}` in a list of {}", items.len())
            }
            _ => format!("`{text}`: `{step}` asks for a part of a value that has none"),
        })?;
        rest = after;
    }
    Ok(at)
}

/// About the bytes that a copy takes.
fn weight(value: &Value) -> usize {
    VALUE_BYTES
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(fields) => {
                fields.iter().map(|(key, value)| VALUE_BYTES + key.len() + weight(value)).sum()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

fn height(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(height).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(height).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resolved(input: Value) -> Result<Value, String> {
        let outputs = HashMap::from([
            ("a".to_owned(), json!({"p": 1, "q": {"r": [5, {"s": "t"}]}, "output": 9})),
            ("x.y".to_owned(), json!([1, 2])),
        ]);
        let params = json!({"k": 7, "m": {"n": ["nn"]}, "d.t": "dotted"});
        let Value::Object(params) = params else { unreachable!() };
        let scope = Scope {
            outputs: &outputs,
            has_node: &|name| name == "later",
            params: &params,
            expose_env: &["SEEN".to_owned(), "UNSET".to_owned(), "PYOCO_AUTH_PEPPER".to_owned()],
            environment: |name| (name != "UNSET").then(|| format!("value of {name}")),
        };
        resolve(&input, &scope, &mut Budget::new(), MAX_DOCUMENT_DEPTH)
    }

    #[test]
    fn an_expression_keeps_the_type_of_its_value() {
        for (text, expected) in [
            ("$node.a.output.p", json!(1)),
            ("$node.a.output.q.r", json!([5, {"s": "t"}])),
            ("$node.a.output.q.r.1.s", json!("t")),
            ("$node.a.output.q.r[1].s", json!("t")),
            ("$node.a.output.output", json!(9)),
            ("$node.x.y.output[1]", json!(2)),
            ("$ctx.params.k", json!(7)),
            ("$ctx.params.m.n.0", json!("nn")),
            ("$ctx.params.m.n[0]", json!("nn")),
            ("$ctx.params.d.t", json!("dotted")),
            ("$env.SEEN", json!("value of SEEN")),
            // Not at the beginning, it is text; so it is in Pyoco.
            ("pre $ctx.params.k", json!("pre $ctx.params.k")),
            ("x ${ctx.params.k}", json!("x ${ctx.params.k}")),
            (" $ctx.params.k", json!(" $ctx.params.k")),
            ("{{params.k}}", json!("{{params.k}}")),
            ("$$ctx.params.k", json!("$ctx.params.k")),
            ("$$", json!("$")),
            ("", json!("")),
        ] {
            assert_eq!(resolved(json!(text)).unwrap(), expected, "{text}");
        }
        let nested = json!({"l": ["$ctx.params.k", {"x": "$node.a.output.p"}], "n": null, "$k": 1});
        assert_eq!(resolved(nested).unwrap(), json!({"l": [7, {"x": 1}], "n": null, "$k": 1}));
    }

    #[test]
    fn what_cannot_be_resolved_says_why() {
        for (text, why) in [
            ("$", "is no expression"),
            ("$ctx", "is no expression"),
            ("$ctx.params", "is no expression"),
            ("$ctx.run_id", "is no expression"),
            ("${ctx.params.k}", "is no expression"),
            ("$node.a", "expected $node.<name>.output"),
            ("$node.a.outputs", "expected $node.<name>.output"),
            ("$node.zz.output", "the graph has no task `zz`"),
            ("$node.later.output", "task `later` has not succeeded before this one"),
            ("$node.a.output.zz", "there is no field `zz`"),
            ("$node.a.output.q.r.9", "there is no item `9` in a list of 2"),
            ("$node.a.output.q.r.-1", "there is no item `-1`"),
            ("$node.a.output.q.r[0", "`[` without `]`"),
            ("$node.a.output.q.r[0]x", "expected `.` or `[`"),
            ("$node.a.output.p.z", "a value that has none"),
            ("$ctx.params.zz", "the run has no parameter `zz`"),
            ("$env.HIDDEN", "add it to runtime.expose_env"),
            ("$env.UNSET", "is not set on this worker"),
            ("$env.PYOCO_AUTH_PEPPER", "not for flows"),
        ] {
            let error = resolved(json!(text)).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn copies_are_bounded() {
        let large = Value::String("x".repeat(MAX_EXPRESSION_BYTES / 3));
        let outputs = HashMap::from([("a".to_owned(), large)]);
        let scope = Scope {
            outputs: &outputs,
            has_node: &|_| false,
            params: &Map::new(),
            expose_env: &[],
            environment: |_| None,
        };
        let three = json!(["$node.a.output", "$node.a.output", "$node.a.output"]);
        let error = resolve(&three, &scope, &mut Budget::new(), MAX_DOCUMENT_DEPTH).unwrap_err();
        assert!(error.contains("64 MiB"), "{error}");
    }
}
