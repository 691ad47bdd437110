//! Reads queries and JSON bodies as FastAPI does, and names every problem in its shape.

mod json_fault;

use form_urlencoded::parse;
use serde_json::{Map, Value, json};

use crate::model::json as lenient;

/// One entry of a 422's `detail` list.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub kind: &'static str,
    /// Where it is: `["body", "flow_name"]`, `["query", "limit"]`.
    pub loc: Vec<Value>,
    pub msg: String,
    pub input: Value,
    /// The bound that was broken, by name.
    pub ctx: Option<Value>,
}

impl Problem {
    pub fn new(kind: &'static str, loc: Vec<Value>, msg: impl Into<String>, input: Value) -> Self {
        Problem { kind, loc, msg: msg.into(), input, ctx: None }
    }

    pub fn with_ctx(mut self, ctx: Value) -> Self {
        self.ctx = Some(ctx);
        self
    }

    pub fn missing(loc: Vec<Value>, input: Value) -> Self {
        Problem::new("missing", loc, "Field required", input)
    }

    pub fn no_flag(loc: Vec<Value>, input: Value) -> Self {
        let msg = "Input should be a valid boolean, unable to interpret input";
        Problem::new("bool_parsing", loc, msg, input)
    }

    pub fn to_json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("type".into(), self.kind.into());
        fields.insert("loc".into(), Value::Array(self.loc.clone()));
        fields.insert("msg".into(), self.msg.clone().into());
        fields.insert("input".into(), self.input.clone());
        if let Some(ctx) = &self.ctx {
            fields.insert("ctx".into(), ctx.clone());
        }
        Value::Object(fields)
    }
}

/// A query string. Of a repeated single value the last counts; unknown names are ignored.
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: Option<&str>) -> Self {
        Query(parse(text.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    pub fn last(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The last value of `name` unless it is empty.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.last(name).filter(|value| !value.is_empty())
    }

    pub fn is_full(&self) -> bool {
        self.has_any("include", &["full", "all"])
    }

    pub fn has_any(&self, name: &str, wanted: &[&str]) -> bool {
        self.0.iter().any(|(key, value)| key == name && wanted.contains(&value.as_str()))
    }

    /// An integer within `(least, most, default)`; a problem is added to `problems`.
    pub fn integer(
        &self,
        name: &str,
        (least, most, default): (i64, i64, i64),
        problems: &mut Vec<Problem>,
    ) -> i64 {
        let Some(text) = self.last(name) else { return default };
        let loc = || vec!["query".into(), name.into()];
        let problem = match parse_integer(text) {
            None => Problem::new(
                "int_parsing",
                loc(),
                "Input should be a valid integer, unable to parse string as an integer",
                text.into(),
            ),
            Some(number) if number < least => Problem::new(
                "greater_than_equal",
                loc(),
                format!("Input should be greater than or equal to {least}"),
                text.into(),
            )
            .with_ctx(json!({"ge": least})),
            Some(number) if number > most => Problem::new(
                "less_than_equal",
                loc(),
                format!("Input should be less than or equal to {most}"),
                text.into(),
            )
            .with_ctx(json!({"le": most})),
            Some(number) => return number,
        };
        problems.push(problem);
        default
    }

    pub fn flag(&self, name: &str, default: bool, problems: &mut Vec<Problem>) -> bool {
        let Some(text) = self.last(name) else { return default };
        parse_flag(text).unwrap_or_else(|| {
            problems.push(Problem::no_flag(vec!["query".into(), name.into()], text.into()));
            default
        })
    }

    /// A float, `nan` and `inf` included.
    pub fn float(&self, name: &str, problems: &mut Vec<Problem>) -> Option<f64> {
        let text = self.last(name)?;
        let parsed = text.trim().parse::<f64>().ok();
        if parsed.is_none() {
            problems.push(Problem::new(
                "float_parsing",
                vec!["query".into(), name.into()],
                "Input should be a valid number, unable to parse string as a number",
                text.into(),
            ));
        }
        parsed
    }
}

pub enum JsonBody {
    Empty,
    Document(Value),
}

/// Why a body is not what its route takes.
#[derive(Debug)]
pub enum BodyFault {
    NotText,
    Problem(Box<Problem>),
}

impl From<Problem> for BodyFault {
    fn from(problem: Problem) -> BodyFault {
        BodyFault::Problem(Box::new(problem))
    }
}

pub fn counted(problems: usize) -> String {
    match problems {
        1 => "one problem in the request".to_owned(),
        more => format!("{more} problems in the request"),
    }
}

/// Only a JSON content type makes a body JSON: a foreign web page cannot send one without being asked.
pub fn json_body(content_type: Option<&str>, bytes: &[u8]) -> Result<JsonBody, BodyFault> {
    if bytes.is_empty() {
        return Ok(JsonBody::Empty);
    }
    if !content_type.is_some_and(is_json) {
        let input = String::from_utf8_lossy(bytes).into_owned();
        return Err(not_an_object(input.into()).into());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| BodyFault::NotText)?;
    // Some editors put a byte order mark in front of a file; it means nothing.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    lenient::from_wire(text.as_bytes()).map(JsonBody::Document).map_err(|e| {
        let (at, words) = match json_fault::find(text) {
            Some(fault) => (fault.at, fault.words.to_owned()),
            // Our own limits: nested too deeply, a number without end.
            None => (offset(text, e.line(), e.column()), without_place(e.to_string())),
        };
        let loc = vec!["body".into(), at.into()];
        let problem = Problem::new("json_invalid", loc, "JSON decode error", json!({}));
        problem.with_ctx(json!({"error": words})).into()
    })
}

pub fn object(body: JsonBody) -> Result<Map<String, Value>, BodyFault> {
    match body {
        JsonBody::Empty => Err(Problem::missing(vec!["body".into()], Value::Null).into()),
        JsonBody::Document(Value::Object(fields)) => Ok(fields),
        JsonBody::Document(other) => Err(not_an_object(other).into()),
    }
}

/// A required flag of a body; words and the numbers 0 and 1 will do, as FastAPI has it.
pub fn required_flag(fields: Map<String, Value>, name: &str) -> Result<bool, BodyFault> {
    let loc = || vec!["body".into(), name.into()];
    let Some(value) = fields.get(name).cloned() else {
        return Err(Problem::missing(loc(), Value::Object(fields)).into());
    };
    let read = match &value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => parse_flag(text),
        Value::Number(number) if number.as_f64() == Some(0.0) => Some(false),
        Value::Number(number) if number.as_f64() == Some(1.0) => Some(true),
        Value::Number(_) => None,
        Value::Null | Value::Array(_) | Value::Object(_) => {
            let msg = "Input should be a valid boolean";
            return Err(Problem::new("bool_type", loc(), msg, value).into());
        }
    };
    read.ok_or_else(|| Problem::no_flag(loc(), value).into())
}

pub fn parse_flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Some(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Some(false),
        _ => None,
    }
}

fn not_an_object(input: Value) -> Problem {
    let msg = "Input should be a valid dictionary or object to extract fields from";
    Problem::new("model_attributes_type", vec!["body".into()], msg, input)
}

/// `application/json` or `application/…+json`, whatever the parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.strip_prefix("application/").is_some_and(|sub| sub == "json" || sub.ends_with("+json"))
}

/// Spaces around it, a sign, a fraction of zeros, and single underscores between digits are fine.
fn parse_integer(text: &str) -> Option<i64> {
    let text = text.trim();
    let whole = match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|b| b == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    let digits = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    let grouped = digits.split('_').all(|g| !g.is_empty() && g.bytes().all(|b| b.is_ascii_digit()));
    if !grouped {
        return None;
    }
    // A number beyond i64 is out of every bound that we have.
    let negative = whole.starts_with('-');
    let saturated = digits.replace('_', "").parse::<i64>().unwrap_or(i64::MAX);
    Some(if negative { -saturated } else { saturated })
}

/// An error of serde_json without the place that it ends with.
fn without_place(mut words: String) -> String {
    if let Some(end) = words.rfind(" at line ") {
        words.truncate(end);
    }
    words
}

/// Characters before a line and column of serde_json (both from 1, columns in bytes).
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let bytes = (start + column.saturating_sub(1)).min(text.len());
    text.char_indices().take_while(|(at, _)| *at < bytes).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_fastapi_reads_them() {
        for (text, number) in
            [("3", 3), (" 3 ", 3), ("+3", 3), ("-3", -3), ("1.0", 1), ("1_0", 10), ("007", 7)]
        {
            assert_eq!(parse_integer(text), Some(number), "{text}");
        }
        assert_eq!(parse_integer("99999999999999999999"), Some(i64::MAX));
        for bad in ["", "abc", "1.5", "1__0", "_1", "0x1", "+", "1e3", "--1"] {
            assert_eq!(parse_integer(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_last_value_counts_and_bounds_are_named() {
        let query = Query::parse(Some("limit=1&limit=2&x=%20a&updated_after=nan"));
        let mut problems = Vec::new();
        assert_eq!(query.integer("limit", (1, 200, 50), &mut problems), 2);
        assert!(query.float("updated_after", &mut problems).unwrap().is_nan());
        assert_eq!(query.last("x"), Some(" a"));
        assert_eq!(problems, []);
        let query = Query::parse(Some("limit=0"));
        query.integer("limit", (1, 200, 50), &mut problems);
        assert_eq!(problems[0].to_json()["ctx"], json!({"ge": 1}));
    }

    #[test]
    fn flags_are_words_or_zero_and_one() {
        let read = |value: Value| {
            let Value::Object(fields) = json!({"hidden": value}) else { panic!() };
            required_flag(fields, "hidden").map_err(|e| match e {
                BodyFault::Problem(problem) => problem.kind,
                other => panic!("{other:?}"),
            })
        };
        for value in [json!(true), json!("ON"), json!("y"), json!(1), json!(1.0)] {
            assert_eq!(read(value.clone()), Ok(true), "{value}");
        }
        for value in [json!(false), json!("f"), json!("No"), json!(0)] {
            assert_eq!(read(value.clone()), Ok(false), "{value}");
        }
        for value in [json!("maybe"), json!(""), json!(2), json!(0.5)] {
            assert_eq!(read(value.clone()), Err("bool_parsing"), "{value}");
        }
        assert_eq!(read(json!(null)), Err("bool_type"));
        assert_eq!(read(json!([])), Err("bool_type"));
        assert!(required_flag(Map::new(), "hidden").is_err());
    }

    #[test]
    fn only_a_json_content_type_makes_json() {
        let read = |content_type, bytes| json_body(content_type, bytes);
        assert!(matches!(read(None, b""), Ok(JsonBody::Empty)));
        assert!(matches!(read(Some("application/json; charset=utf-8"), b"{}"), Ok(JsonBody::Document(_))));
        assert!(matches!(read(Some("application/x+json"), b"{}"), Ok(JsonBody::Document(_))));
        for content_type in [None, Some("text/plain"), Some("text/json")] {
            assert!(matches!(read(content_type, b"{}"), Err(BodyFault::Problem(_))));
        }
        assert!(matches!(read(Some("application/json"), b"\"\xff\""), Err(BodyFault::NotText)));
        match read(Some("application/json"), "{\"é\": 1} x".as_bytes()) {
            Err(BodyFault::Problem(p)) => assert_eq!(p.loc, ["body".into(), Value::from(9)]),
            _ => panic!("not refused"),
        }
    }
}
