//! How the settings of a stream or consumer differ from those that it would be created with.

use serde_json::Value;

const NANOS_PER_SEC: i64 = 1_000_000_000;
/// How long the Python package keeps the records of workers, in nanoseconds.
const PYTHON_MAX_AGE: i64 = 15 * NANOS_PER_SEC;

/// One setting that is not what this program would create the stream or consumer with.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// JetStream's name of it.
    pub setting: &'static str,
    /// Times in seconds; `null` for no limit.
    pub is: Value,
    /// The same, as it is asked for.
    pub asked: Value,
    pub fix: Fix,
    /// What is asked for, as JetStream's API takes it.
    pub(crate) raw: Value,
}

/// Whether a program may change a setting by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fix {
    /// It loses nothing.
    Safe,
    /// It loses nothing, and needs further nodes.
    NeedsNodes,
    /// The server refuses it, or it may remove what is stored.
    ByHand,
}

#[derive(Clone, Copy)]
enum Kind {
    Word,
    Flag,
    /// Below 1 it is no limit.
    Limit,
    /// In nanoseconds.
    Time,
    /// In nanoseconds; 0 is no limit.
    TimeLimit,
    Replicas,
}

/// When a change of a setting to what is asked for loses nothing.
#[derive(Clone, Copy, PartialEq)]
enum Loses {
    Never,
    /// It does when the value gets smaller.
    WhenSmaller,
    Perhaps,
}

/// In the order of the fixes: a duplicate window must not be longer than the age.
const OF_STREAMS: &[(&str, Kind, Loses)] = &[
    ("retention", Kind::Word, Loses::Perhaps),
    ("storage", Kind::Word, Loses::Perhaps),
    ("discard", Kind::Word, Loses::Perhaps),
    ("max_msgs_per_subject", Kind::Limit, Loses::Perhaps),
    ("max_msgs", Kind::Limit, Loses::WhenSmaller),
    ("max_bytes", Kind::Limit, Loses::WhenSmaller),
    ("max_age", Kind::TimeLimit, Loses::WhenSmaller),
    ("duplicate_window", Kind::Time, Loses::Never),
    ("allow_direct", Kind::Flag, Loses::Never),
    ("allow_rollup_hdrs", Kind::Flag, Loses::Perhaps),
    ("deny_delete", Kind::Flag, Loses::Perhaps),
    ("deny_purge", Kind::Flag, Loses::Perhaps),
    ("num_replicas", Kind::Replicas, Loses::WhenSmaller),
];

const OF_CONSUMERS: &[(&str, Kind, Loses)] = &[
    ("ack_policy", Kind::Word, Loses::Perhaps),
    // Workers read both when they start: with less, a job that runs would be delivered to another one.
    ("ack_wait", Kind::Time, Loses::WhenSmaller),
    ("max_deliver", Kind::Limit, Loses::WhenSmaller),
    ("max_ack_pending", Kind::Limit, Loses::Never),
    ("num_replicas", Kind::Replicas, Loses::WhenSmaller),
];

/// Settings that count even where none is asked for: with them a stream removes what it should keep.
const NONE_MEANS_NO_LIMIT: [&str; 2] = ["max_age", "max_msgs_per_subject"];

/// `python_bucket`: the Python package makes the bucket with [`PYTHON_MAX_AGE`], so that age is nobody's
/// wish.
pub(crate) fn of_stream(asked: &Value, found: &Value, python_bucket: bool) -> Vec<Difference> {
    let mut differences = differences(OF_STREAMS, asked, found);
    let is_wish = !python_bucket || found["max_age"] != PYTHON_MAX_AGE;
    // Without the age that an operator has given it, the stream would grow without end.
    let is_retention = |d: &&mut Difference| d.setting == "max_age" && d.asked.is_null() && is_wish;
    differences.iter_mut().filter(is_retention).for_each(|d| d.fix = Fix::ByHand);
    differences
}

pub(crate) fn of_consumer(asked: &Value, found: &Value) -> Vec<Difference> {
    differences(OF_CONSUMERS, asked, found)
}

fn differences(known: &[(&'static str, Kind, Loses)], asked: &Value, found: &Value) -> Vec<Difference> {
    let difference = |&(setting, kind, loses): &(&'static str, Kind, Loses)| {
        // An operator may bound what is not bound by us.
        if asked.get(setting).is_none() && !NONE_MEANS_NO_LIMIT.contains(&setting) {
            return None;
        }
        // A consumer without a number of its own has that of its stream.
        if matches!(kind, Kind::Replicas) && found[setting].as_i64().unwrap_or(0) == 0 {
            return None;
        }
        let (is, wanted) = (shown(kind, &found[setting]), shown(kind, &asked[setting]));
        let fix = match loses {
            Loses::Perhaps => Fix::ByHand,
            Loses::WhenSmaller if !is_larger(&wanted, &is) => Fix::ByHand,
            _ if matches!(kind, Kind::Replicas) => Fix::NeedsNodes,
            _ => Fix::Safe,
        };
        let raw = match (&asked[setting], kind) {
            (Value::Null, Kind::Limit) => (-1).into(),
            (Value::Null, _) => 0.into(),
            (raw, _) => raw.clone(),
        };
        (is != wanted).then_some(Difference { setting, is, asked: wanted, fix, raw })
    };
    known.iter().filter_map(difference).collect()
}

fn shown(kind: Kind, value: &Value) -> Value {
    let number = value.as_i64().unwrap_or(0);
    match kind {
        Kind::Word => value.clone(),
        Kind::Flag => value.as_bool().unwrap_or(false).into(),
        Kind::Limit | Kind::TimeLimit if number <= 0 => Value::Null,
        Kind::Limit | Kind::Replicas => number.into(),
        Kind::Time | Kind::TimeLimit if number % NANOS_PER_SEC == 0 => (number / NANOS_PER_SEC).into(),
        Kind::Time | Kind::TimeLimit => (number as f64 / NANOS_PER_SEC as f64).into(),
    }
}

/// No limit is larger than any.
fn is_larger(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (None, other) => other.is_some(),
        (Some(_), None) => false,
        (Some(one), Some(other)) => one > other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(asked: &Value, found: &Value) -> Vec<(&'static str, Fix)> {
        of_stream(asked, found, false).into_iter().map(|d| (d.setting, d.fix)).collect()
    }

    #[test]
    fn only_what_loses_nothing_is_fixed_by_a_program() {
        let asked =
            json!({"max_bytes": 1000, "num_replicas": 3, "retention": "limits", "allow_direct": true});
        let same = json!({"max_bytes": 1000, "num_replicas": 3, "retention": "limits", "allow_direct": true,
            "max_age": 0, "max_msgs_per_subject": -1, "max_msgs": 5});
        assert_eq!(found(&asked, &same), []);
        let less = json!({"max_bytes": 10, "num_replicas": 1, "retention": "limits", "max_age": 5});
        assert_eq!(
            found(&asked, &less),
            [
                ("max_bytes", Fix::Safe),
                ("max_age", Fix::ByHand),
                ("allow_direct", Fix::Safe),
                ("num_replicas", Fix::NeedsNodes)
            ]
        );
        let more = json!({"max_bytes": -1, "num_replicas": 5, "retention": "interest", "allow_direct": true});
        assert_eq!(
            found(&asked, &more),
            [("retention", Fix::ByHand), ("max_bytes", Fix::ByHand), ("num_replicas", Fix::ByHand)]
        );
        let shorter = json!({"max_age": 7_000_000_000_u64});
        assert_eq!(found(&shorter, &json!({"max_age": 0})), [("max_age", Fix::ByHand)]);
        assert_eq!(found(&shorter, &json!({"max_age": 5_000_000_000_u64})), [("max_age", Fix::Safe)]);
        let of_workers = |age: u64| of_stream(&json!({}), &json!({"max_age": age}), true)[0].fix;
        assert_eq!((of_workers(15_000_000_000), of_workers(3_600_000_000_000)), (Fix::Safe, Fix::ByHand));
    }

    #[test]
    fn what_workers_rely_on_is_not_made_smaller() {
        let asked = json!({"ack_wait": 30_000_000_000_u64, "max_deliver": 20, "max_ack_pending": 50});
        let fixes = |is: &Value| -> Vec<_> {
            of_consumer(&asked, is).into_iter().map(|d| (d.setting, d.fix)).collect()
        };
        let more = json!({"ack_wait": 60_000_000_000_u64, "max_deliver": -1, "max_ack_pending": 200});
        assert_eq!(
            fixes(&more),
            [("ack_wait", Fix::ByHand), ("max_deliver", Fix::ByHand), ("max_ack_pending", Fix::Safe)]
        );
        let less = json!({"ack_wait": 10_000_000_000_u64, "max_deliver": 5, "max_ack_pending": 50});
        assert_eq!(fixes(&less), [("ack_wait", Fix::Safe), ("max_deliver", Fix::Safe)]);
    }

    #[test]
    fn a_difference_is_shown_in_seconds() {
        let asked = json!({"ack_wait": 30_000_000_000_u64, "max_deliver": 20, "num_replicas": 1});
        let is = json!({"ack_wait": 2_500_000_000_u64, "max_deliver": -1, "num_replicas": 0});
        let found = of_consumer(&asked, &is);
        let shown: Vec<_> = found.iter().map(|d| (d.setting, d.is.clone(), d.asked.clone())).collect();
        assert_eq!(shown, [("ack_wait", json!(2.5), json!(30)), ("max_deliver", Value::Null, json!(20))]);
    }
}
