//! Reads one YAML document into a [`Node`], as PyYAML's `safe_load` does, within bounds.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::node::{Node, Weight};
use super::scalar::{self, Resolved, YAML_TAG_PREFIX};
use crate::model::limits::{MAX_DOCUMENT_DEPTH, MAX_YAML_ALIAS_BYTES, MAX_YAML_NODES};

/// Why a text is not a YAML document that we take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct YamlError {
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong there; never the document's own text.
    pub problem: String,
}

/// Reads the only document of `text`; an empty one is [`Node::Null`].
pub fn parse(text: &str) -> Result<Node, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    refuse_control_characters(text)?;
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| at(error.marker(), error.info()))?;
        builder.take(event).map_err(|problem| at(&span.start, problem))?;
    }
    Ok(builder.root.unwrap_or(Node::Null))
}

fn at(marker: &Marker, problem: &str) -> YamlError {
    YamlError { line: marker.line(), column: marker.col() + 1, problem: problem.to_owned() }
}

/// YAML 1.1 allows no control characters but tab and line breaks, not even in quotes.
fn refuse_control_characters(text: &str) -> Result<(), YamlError> {
    let allowed = |c: char| {
        matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}') || c >= '\u{10000}'
    };
    let Some((offset, _)) = text.char_indices().find(|(_, c)| !allowed(*c)) else { return Ok(()) };
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Err(YamlError {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        problem: "control characters are not allowed".to_owned(),
    })
}

/// Turns events into a tree without recursion, so that depth is a number and not a stack.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    anchors: HashMap<usize, (Rc<Node>, Weight)>,
    /// What all anchors and aliases together have copied.
    copied: Weight,
}

struct Open {
    anchor: usize,
    kind: Kind,
    content: Content,
}

enum Content {
    Seq(Vec<Node>),
    Map { merged: Vec<(Node, Node)>, own: Vec<(Node, Node)>, key: Option<Key> },
}

enum Key {
    Node(Node),
    Merge,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Seq,
    Map,
    Set,
    OrderedMap,
    Pairs,
}

type Step<T = ()> = Result<T, &'static str>;

impl Builder {
    fn take(&mut self, event: Event) -> Step {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 { Err("more than one document") } else { Ok(()) }
            }
            Event::Alias(anchor) => {
                let node = self.expand(anchor)?;
                self.place(0, Resolved::Value(node))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let resolved = scalar_value(&text, style, tag.as_deref())?;
                self.place(anchor, resolved)
            }
            Event::SequenceStart(anchor, tag) => {
                let kind = match own_suffix(tag.as_deref())?.as_deref() {
                    None | Some("seq") => Kind::Seq,
                    Some("omap") => Kind::OrderedMap,
                    Some("pairs") => Kind::Pairs,
                    Some(_) => return Err("a tag that is not for a sequence"),
                };
                self.open(anchor, kind, Content::Seq(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                let kind = match own_suffix(tag.as_deref())?.as_deref() {
                    None | Some("map") => Kind::Map,
                    Some("set") => Kind::Set,
                    Some(_) => return Err("a tag that is not for a mapping"),
                };
                let content = Content::Map { merged: Vec::new(), own: Vec::new(), key: None };
                self.open(anchor, kind, content)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Err("an end without a start") };
                let node = close(open.kind, open.content)?;
                self.place(open.anchor, Resolved::Value(node))
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, anchor: usize, kind: Kind, content: Content) -> Step {
        if self.open.len() >= MAX_DOCUMENT_DEPTH {
            return Err("nested too deeply");
        }
        self.open.push(Open { anchor, kind, content });
        Ok(())
    }

    /// A copy of what an anchor names, if it is complete and still fits.
    fn expand(&mut self, anchor: usize) -> Step<Node> {
        let Some((node, weight)) = self.anchors.get(&anchor) else {
            return Err("an alias inside of what it names");
        };
        let (node, weight) = (Rc::clone(node), *weight);
        self.charge(weight)?;
        if self.open.len() + weight.height > MAX_DOCUMENT_DEPTH {
            return Err("nested too deeply");
        }
        Ok(Node::clone(&node))
    }

    /// Counts a copy before it is made: anchors inside anchors multiply as aliases do.
    fn charge(&mut self, weight: Weight) -> Step {
        self.copied.nodes += weight.nodes;
        self.copied.bytes += weight.bytes;
        if self.copied.nodes > MAX_YAML_NODES || self.copied.bytes > MAX_YAML_ALIAS_BYTES {
            return Err("anchors and aliases expand to too much");
        }
        Ok(())
    }

    /// Puts a complete value where it belongs: a key, a value, an item or the root.
    fn place(&mut self, anchor: usize, resolved: Resolved) -> Step {
        if anchor != 0
            && let Resolved::Value(node) = &resolved
        {
            let weight = node.weight();
            self.charge(weight)?;
            self.anchors.insert(anchor, (Rc::new(node.clone()), weight));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            Some(Content::Map { key: slot @ None, .. }) => {
                *slot = Some(match resolved {
                    Resolved::Merge => Key::Merge,
                    Resolved::Default => Key::Node(Node::Str("=".to_owned())),
                    Resolved::Value(node) if node.is_scalar() => Key::Node(node),
                    Resolved::Value(_) => return Err("a key that is not a scalar"),
                });
            }
            Some(Content::Map { merged, own, key }) => match key.take() {
                Some(Key::Merge) => merge(merged, value_of(resolved)?)?,
                Some(Key::Node(key)) => own.push((key, value_of(resolved)?)),
                None => return Err("a value without a key"),
            },
            Some(Content::Seq(items)) => items.push(value_of(resolved)?),
            None => self.root = Some(value_of(resolved)?),
        }
        Ok(())
    }
}

fn value_of(resolved: Resolved) -> Step<Node> {
    match resolved {
        Resolved::Value(node) => Ok(node),
        Resolved::Merge => Err("`<<` outside of a key"),
        Resolved::Default => Err("`=` outside of a key"),
    }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Step<Resolved> {
    match own_suffix(tag)? {
        Some(suffix) => scalar::tagged(&suffix, text),
        // The tag `!` makes PyYAML read quoted text as if it were plain.
        None if style == ScalarStyle::Plain || tag.is_some() => scalar::plain(text),
        None => Ok(Resolved::Value(Node::Str(text.to_owned()))),
    }
}

/// The tag without YAML's prefix; `None` for no tag and for `!`, which names no type.
fn own_suffix(tag: Option<&Tag>) -> Step<Option<String>> {
    let Some(tag) = tag else { return Ok(None) };
    let whole = format!("{}{}", tag.handle, tag.suffix);
    if whole == "!" {
        return Ok(None);
    }
    match whole.strip_prefix(YAML_TAG_PREFIX) {
        Some(suffix) => Ok(Some(suffix.to_owned())),
        None => Err("a tag that is not for plain data"),
    }
}

/// Adds what `<<` brings: a mapping, or a list of them in which the first wins.
fn merge(merged: &mut Vec<(Node, Node)>, value: Node) -> Step {
    match value {
        Node::Map(pairs) => merged.extend(pairs),
        Node::Seq(items) => {
            for item in items.into_iter().rev() {
                match item {
                    Node::Map(pairs) => merged.extend(pairs),
                    _ => return Err("`<<` takes a mapping or a list of mappings"),
                }
            }
        }
        _ => return Err("`<<` takes a mapping or a list of mappings"),
    }
    Ok(())
}

fn close(kind: Kind, content: Content) -> Step<Node> {
    Ok(match content {
        Content::Seq(items) if kind == Kind::Seq => Node::Seq(items),
        Content::Seq(items) => {
            let mut pairs = Vec::with_capacity(items.len());
            for item in items {
                match item {
                    Node::Map(one) if one.len() == 1 => pairs.extend(one),
                    _ => return Err("an ordered mapping is a list of mappings with one key each"),
                }
            }
            Node::Pairs(pairs)
        }
        Content::Map { merged, own, .. } => {
            let pairs = last_wins(merged.into_iter().chain(own));
            match kind {
                Kind::Set => Node::Set(pairs.into_iter().map(|(key, _)| key).collect()),
                _ => Node::Map(pairs),
            }
        }
    })
}

/// A key stays where it was first written and keeps its first form; its last value counts.
fn last_wins(all: impl Iterator<Item = (Node, Node)>) -> Vec<(Node, Node)> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut pairs: Vec<(Node, Node)> = Vec::new();
    for (key, value) in all {
        match places.get(&identity(&key)) {
            Some(&place) => pairs[place].1 = value,
            None => {
                places.insert(identity(&key), pairs.len());
                pairs.push((key, value));
            }
        }
    }
    pairs
}

/// Equal for keys that are equal in Python, where `1`, `1.0` and `True` are one key.
fn identity(key: &Node) -> String {
    match key {
        Node::Bool(value) => format!("n{}", u8::from(*value)),
        Node::Int(value) => format!("n{value}"),
        Node::Float(value) if value.fract() == 0.0 && value.abs() < 1e38 => {
            format!("n{}", *value as i128)
        }
        Node::Str(text) => format!("s{text}"),
        Node::Timestamp(text) => format!("t{text}"),
        Node::Binary(text) => format!("b{text}"),
        other => format!("o{}", other.repr()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Documents that PyYAML's scanner refuses and ours takes: it follows YAML 1.2 there, in which
    /// tabs may separate, and an anchor may be defined again.
    const TAKEN_HERE: &[&str] = &["a: &x 1\nb: &x 2\nc: *x", "...", "a: x\ty", "a: 1 \t", "\ta: 1"];

    #[test]
    fn documents_mean_what_they_mean_to_pyyaml() {
        let table: Vec<Value> =
            serde_json::from_str(include_str!("../../../tests/golden/yaml11.json")).unwrap();
        assert!(table.len() > 400, "{} cases", table.len());
        let mut wrong = Vec::new();
        for case in &table {
            let text = case["yaml"].as_str().unwrap();
            let ours = parse(text).map(Node::into_json);
            let right = match (&ours, case.get("json")) {
                (Ok(ours), Some(theirs)) => same(ours, theirs),
                (Ok(_), None) => TAKEN_HERE.contains(&text),
                (Err(_), Some(_)) => false,
                (Err(_), None) => true,
            };
            if !right {
                wrong.push(format!("{text:?}: {ours:?}, PyYAML: {case}"));
            }
        }
        assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    }

    /// Equal, with the last bit of a float to spare: JSON readers round differently.
    fn same(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(x), Value::Number(y)) if x.is_f64() && y.is_f64() => {
                let (x, y) = (x.as_f64().unwrap(), y.as_f64().unwrap());
                (x - y).abs() <= x.abs() * 1e-15
            }
            (Value::Array(x), Value::Array(y)) => {
                x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y))
            }
            (Value::Object(x), Value::Object(y)) => {
                x.len() == y.len() && x.iter().zip(y).all(|((k, x), (l, y))| k == l && same(x, y))
            }
            _ => a == b,
        }
    }

    #[test]
    fn a_small_document_cannot_become_a_large_one() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let inner = vec![format!("*a{}", level - 1); 9].join(", ");
            laughs.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
        }
        let text = format!("a: &a {}\nb: [{}]", "x".repeat(200_000), vec!["*a"; 100].join(", "));
        let deep_aliases = (1..40).fold("a0: &a0 x\n".to_owned(), |text, level| {
            let (open, close) = ("[".repeat(5), "]".repeat(5));
            format!("{text}a{level}: &a{level} {open}*a{}{close}\n", level - 1)
        });
        let anchors: String = (0..90).map(|level| format!("&a{level} [")).collect();
        let anchors = format!("{anchors}{}{}", "1,".repeat(50_000), "]".repeat(90));
        for (text, why) in [
            (laughs, "too much"),
            (text, "too much"),
            (anchors, "too much"),
            (deep_aliases, "deeply"),
            // The scanner looks ahead and has a limit of its own.
            ("[".repeat(200_000), "recursion limit"),
            ("{a: ".repeat(50_000), "recursion limit"),
            ("- ".repeat(100_000), "deeply"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn an_error_names_its_place() {
        let error = parse("a: 1\nb: !x 2\n").unwrap_err();
        assert_eq!(error.to_string(), "line 2, column 4: a tag that is not for plain data");
        assert_eq!((error.line, error.column), (2, 4));
        assert_eq!(
            parse("a: 1\nbb\u{1}").unwrap_err().to_string(),
            "line 2, column 3: control characters are not allowed"
        );
    }

    const ROUNDS: usize = 20_000;

    /// Documents with random damage: none may panic or take long, whatever it becomes.
    #[test]
    fn damaged_documents_are_read_or_refused() {
        let table: Vec<Value> =
            serde_json::from_str(include_str!("../../../tests/golden/yaml11.json")).unwrap();
        let pieces = [
            "[", "]", "{", "}", ": ", "- ", "? ", "&a ", "*a", "!", "!!", "|", ">", "'", "\"", "#", "\n",
            "\t", ",", "%", "---\n", "...", "<<: ", "\\", "é", "\u{feff}", " ",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let mut taken = 0;
        for _ in 0..ROUNDS {
            let mut text: Vec<char> = Vec::new();
            for _ in 0..=random(2) {
                text.extend(table[random(table.len())]["yaml"].as_str().unwrap().chars());
                text.push('\n');
            }
            for _ in 0..random(4) {
                if text.is_empty() {
                    break;
                }
                let at = random(text.len());
                match random(3) {
                    0 => drop(text.remove(at)),
                    1 => text.truncate(at + 1),
                    _ => drop(text.splice(at..at, pieces[random(pieces.len())].chars())),
                }
            }
            taken += usize::from(parse(&text.into_iter().collect::<String>()).is_ok());
        }
        assert!((ROUNDS / 20..ROUNDS).contains(&taken), "{taken} of {ROUNDS}");
    }
}
