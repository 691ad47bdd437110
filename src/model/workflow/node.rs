//! The tree that a YAML document becomes, and how it reads as JSON or as Python prints it.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

/// A YAML value after its tag was resolved. Keys of a mapping keep their types, because refusals
/// show them and `1` is not `"1"`.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `~`, `null` or nothing.
    Null,
    Bool(bool),
    /// An integer in any of the notations.
    Int(i128),
    /// A float, and an integer beyond 128 bits.
    Float(f64),
    Str(String),
    /// A date or time, as Python's `isoformat()` writes it.
    Timestamp(String),
    /// `!!binary`, as canonical base64.
    Binary(String),
    Seq(Vec<Node>),
    /// A mapping: keys are scalars and unique, in the order in which they were first written.
    Map(Vec<(Node, Node)>),
    /// `!!set`, in the order of the document.
    Set(Vec<Node>),
    Pairs(Vec<(Node, Node)>),
}

/// What a tree weighs: bounds on aliases are bounds on these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    pub nodes: usize,
    pub bytes: usize,
    /// Levels below this one, itself included.
    pub height: usize,
}

impl Node {
    pub fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Node::Map(pairs) => {
                pairs.iter().find(|(k, _)| matches!(k, Node::Str(k) if k == key)).map(|(_, v)| v)
            }
            _ => None,
        }
    }

    /// Whether Python's `not value` holds: nothing, zero, or empty.
    pub fn is_falsy(&self) -> bool {
        match self {
            Node::Null => true,
            Node::Bool(value) => !value,
            Node::Int(value) => *value == 0,
            Node::Float(value) => *value == 0.0,
            Node::Str(text) | Node::Binary(text) => text.is_empty(),
            Node::Timestamp(_) => false,
            Node::Seq(items) | Node::Set(items) => items.is_empty(),
            Node::Map(pairs) | Node::Pairs(pairs) => pairs.is_empty(),
        }
    }

    /// Whether it may be the key of a mapping (in Python: whether it can be hashed).
    pub fn is_scalar(&self) -> bool {
        !matches!(self, Node::Seq(_) | Node::Map(_) | Node::Set(_) | Node::Pairs(_))
    }

    pub fn weight(&self) -> Weight {
        let mut total = Weight { nodes: 1, bytes: 0, height: 1 };
        let mut add = |child: &Node| {
            let weight = child.weight();
            total.nodes += weight.nodes;
            total.bytes += weight.bytes;
            total.height = total.height.max(weight.height + 1);
        };
        match self {
            Node::Str(text) | Node::Timestamp(text) | Node::Binary(text) => total.bytes = text.len(),
            Node::Seq(items) | Node::Set(items) => items.iter().for_each(add),
            Node::Map(pairs) | Node::Pairs(pairs) => {
                for (key, value) in pairs {
                    add(key);
                    add(value);
                }
            }
            Node::Null | Node::Bool(_) | Node::Int(_) | Node::Float(_) => {}
        }
        total
    }

    /// The JSON that Python's `json.dumps` would write. What has no JSON there gets the nearest one:
    /// not-a-number and infinity become `null`, an integer beyond 64 bits a float (as JSON readers
    /// make of it), dates and times ISO text, `!!binary` base64 text, `!!set` a list.
    pub fn into_json(self) -> Value {
        match self {
            Node::Null => Value::Null,
            Node::Bool(value) => Value::Bool(value),
            Node::Int(value) => integer(value),
            Node::Float(value) => Number::from_f64(value).map_or(Value::Null, Value::Number),
            Node::Str(text) | Node::Timestamp(text) | Node::Binary(text) => Value::String(text),
            Node::Seq(items) | Node::Set(items) => {
                Value::Array(items.into_iter().map(Node::into_json).collect())
            }
            Node::Map(pairs) => Value::Object(into_object(pairs)),
            Node::Pairs(pairs) => Value::Array(
                pairs
                    .into_iter()
                    .map(|(key, value)| Value::Array(vec![key.into_json(), value.into_json()]))
                    .collect(),
            ),
        }
    }

    /// `1` → `"1"`, `yes` → `"true"`, `~` → `"null"`.
    pub fn into_json_key(self) -> String {
        match self {
            Node::Str(text) | Node::Timestamp(text) | Node::Binary(text) => text,
            Node::Null => "null".to_owned(),
            Node::Bool(value) => value.to_string(),
            Node::Float(value) if value.is_nan() => "NaN".to_owned(),
            Node::Float(value) if value.is_infinite() => {
                if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
            }
            other => other.repr(),
        }
    }

    /// How Python's `repr` shows a scalar; refusals list keys that way.
    pub fn repr(&self) -> String {
        match self {
            Node::Null => "None".to_owned(),
            Node::Bool(true) => "True".to_owned(),
            Node::Bool(false) => "False".to_owned(),
            Node::Int(value) => value.to_string(),
            Node::Float(value) => float_repr(*value),
            Node::Str(text) | Node::Timestamp(text) | Node::Binary(text) => text_repr(text),
            Node::Seq(_) | Node::Set(_) => "[...]".to_owned(),
            Node::Map(_) | Node::Pairs(_) => "{...}".to_owned(),
        }
    }
}

/// The pairs of a mapping as a JSON object; of keys that read the same there, the last one counts.
pub fn into_object(pairs: Vec<(Node, Node)>) -> Map<String, Value> {
    pairs.into_iter().map(|(key, value)| (key.into_json_key(), value.into_json())).collect()
}

/// As Python prints a sorted list of them; what Python could not compare: numbers first, then text.
pub fn repr_sorted<'a>(keys: impl IntoIterator<Item = &'a Node>) -> String {
    let mut keys: Vec<&Node> = keys.into_iter().collect();
    keys.sort_by(|a, b| compare(a, b));
    let shown: Vec<String> = keys.into_iter().map(Node::repr).collect();
    format!("[{}]", shown.join(", "))
}

fn compare(a: &Node, b: &Node) -> Ordering {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => match (a, b) {
            (Node::Str(a), Node::Str(b)) => a.cmp(b),
            _ => a.repr().cmp(&b.repr()),
        },
    }
}

fn number(node: &Node) -> Option<f64> {
    match node {
        Node::Bool(value) => Some(f64::from(u8::from(*value))),
        // Only an order among a handful of keys hangs on the lost digits.
        Node::Int(value) => Some(*value as f64),
        Node::Float(value) => Some(*value),
        _ => None,
    }
}

fn integer(value: i128) -> Value {
    if let Ok(value) = i64::try_from(value) {
        Value::from(value)
    } else if let Ok(value) = u64::try_from(value) {
        Value::from(value)
    } else {
        Number::from_f64(value as f64).map_or(Value::Null, Value::Number)
    }
}

/// The shortest digits that read back, with Python's choice of where the exponent begins.
fn float_repr(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "nan"
        } else if value > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    let text = value.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

fn text_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => match u32::from(c) {
                code @ ..=0xff => out.push_str(&format!("\\x{code:02x}")),
                code @ ..=0xffff => out.push_str(&format!("\\u{code:04x}")),
                code => out.push_str(&format!("\\U{code:08x}")),
            },
        }
    }
    out.push(quote);
    out
}

/// Nearly Python's `isprintable`: without controls, separators, format characters and private use.
fn is_printable(c: char) -> bool {
    let hidden = matches!(c,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{10ffff}');
    c == ' ' || !(c.is_control() || c.is_whitespace() || hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_as_python_shows_them() {
        let keys = [
            Node::Str("zz".into()),
            Node::Str("it's".into()),
            Node::Str("é\n\u{200b}\u{a0}😀\u{7f}".into()),
            Node::Int(9),
            Node::Bool(true),
            Node::Float(-1.5),
        ];
        assert_eq!(repr_sorted(&keys), "[-1.5, True, 9, \"it's\", 'zz', 'é\\n\\u200b\\xa0😀\\x7f']");
        assert_eq!(Node::Str("it's\"".into()).repr(), "'it\\'s\"'");
        for (value, text) in [
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.25e-120, "1.25e-120"),
            (-0.0, "-0.0"),
        ] {
            assert_eq!(Node::Float(value).repr(), text);
        }
    }

    #[test]
    fn what_is_not_json_gets_the_nearest_value() {
        assert_eq!(Node::Float(f64::NAN).into_json(), Value::Null);
        assert_eq!(Node::Int(i128::from(u64::MAX)).into_json(), Value::from(u64::MAX));
        assert_eq!(Node::Int(1 << 70).into_json(), Value::from(1.1805916207174113e21));
        let set = Node::Set(vec![Node::Str("b".into()), Node::Int(1)]);
        assert_eq!(set.into_json(), serde_json::json!(["b", 1]));
        let pairs = vec![(Node::Null, Node::Int(1)), (Node::Int(1), Node::Int(2))];
        assert_eq!(Node::Map(pairs).into_json(), serde_json::json!({"null": 1, "1": 2}));
    }
}
