//! Which wheels of the registry a worker takes: decided here, from names and tags alone.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::fit::Interpreter;
use super::store::is_hash;
use crate::model::wheel::{SkippedWheel, WheelName};

/// In `skipped`: no tag of the wheel fits the interpreter. Python workers use the same word.
const UNFIT: &str = "unsupported_wheel_tags";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    pub name: String,
    /// Which workers are to get it; all when there is none.
    pub tags: Vec<String>,
    /// Which upload it is from.
    pub nuid: String,
    pub size: u64,
    /// Of its bytes, in hex.
    pub sha256: String,
    /// Its place in the history of the registry.
    pub revision: u64,
    /// Why this worker does not want it although it fits: it was looked at and found wrong.
    pub refused: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// As it was offered; its hash is one, in lower case.
    pub offer: Offer,
    pub name: WheelName,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// One per package, in the order of the packages' names.
    pub chosen: Vec<Choice>,
    /// Those that would be newer, if they were of use, or all of a package of which none is.
    pub skipped: Vec<SkippedWheel>,
}

/// Chooses per package the newest wheel that is meant for a worker with these tags and fits; of two
/// that are equally new, the one that fits best.
pub fn select(worker_tags: &[String], offers: &[Offer], python: &Interpreter) -> Selection {
    let is_meant =
        |offer: &&Offer| offer.tags.is_empty() || offer.tags.iter().any(|t| worker_tags.contains(t));
    let mut selection = Selection::default();
    let mut packages: BTreeMap<String, Vec<Choice>> = BTreeMap::new();
    for offer in offers.iter().filter(is_meant) {
        match WheelName::parse(&offer.name) {
            Ok(name) => {
                let mut offer = offer.clone();
                offer.sha256.make_ascii_lowercase();
                packages.entry(name.package.clone()).or_default().push(Choice { offer, name });
            }
            Err(e) => selection.skipped.push(SkippedWheel {
                wheel_name: offer.name.clone(),
                reason: e.to_string(),
                ..SkippedWheel::default()
            }),
        }
    }
    for wheels in packages.into_values() {
        let best = best(&wheels, python);
        for wheel in &wheels {
            let is_newer = best.is_none_or(|best| wheel.name.age(&best.name).is_gt());
            if is_newer && let Err(reason) = use_of(wheel, python) {
                selection.skipped.push(SkippedWheel {
                    wheel_name: wheel.offer.name.clone(),
                    package_name: wheel.name.package.clone(),
                    package_version: wheel.name.version.to_string(),
                    reason,
                });
            }
        }
        selection.chosen.extend(best.cloned());
    }
    selection.skipped.sort_by(|a, b| a.wheel_name.cmp(&b.wheel_name));
    selection
}

fn best<'a>(wheels: &'a [Choice], python: &Interpreter) -> Option<&'a Choice> {
    let of_use = wheels.iter().filter_map(|wheel| Some((use_of(wheel, python).ok()?, wheel)));
    let newest = of_use.max_by(|(rank, wheel), (other_rank, other)| {
        let age = wheel.name.age(&other.name);
        // Names differ at last, so that the order of the offers does not count.
        age.then(Reverse(rank).cmp(&Reverse(other_rank)))
            .then_with(|| wheel.offer.name.cmp(&other.offer.name))
    });
    newest.map(|(_, wheel)| wheel)
}

/// How well it fits, or why it is of no use.
fn use_of(wheel: &Choice, python: &Interpreter) -> Result<usize, String> {
    let rank = python.rank(&wheel.name).ok_or(UNFIT)?;
    if let Some(reason) = &wheel.offer.refused {
        return Err(reason.clone());
    }
    // It becomes the name of a folder.
    if !is_hash(&wheel.offer.sha256) {
        return Err("the registry does not tell its SHA-256".to_owned());
    }
    Ok(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python() -> Interpreter {
        let tags = ["cp311-cp311-linux_x86_64", "cp311-abi3-linux_x86_64", "py3-none-any"];
        Interpreter::new("3.11.7".into(), tags.map(str::to_owned).to_vec())
    }

    fn offer(name: &str, tags: &[&str]) -> Offer {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        Offer { name: name.into(), tags, sha256: "0A".repeat(32), ..Offer::default() }
    }

    fn of(worker: &[&str], offers: &[Offer]) -> (Vec<String>, Vec<(String, String)>) {
        let worker: Vec<String> = worker.iter().map(|tag| (*tag).to_owned()).collect();
        let selection = select(&worker, offers, &python());
        let mut backwards = offers.to_vec();
        backwards.reverse();
        assert_eq!(select(&worker, &backwards, &python()), selection, "the order counts");
        let skipped = selection.skipped.into_iter().map(|s| (s.wheel_name, s.reason));
        (selection.chosen.into_iter().map(|c| c.offer.name).collect(), skipped.collect())
    }

    #[test]
    fn tags_say_who_gets_a_wheel_and_none_means_everybody() {
        let offers = [
            offer("b-1-py3-none-any.whl", &["gpu", "cpu"]),
            offer("C-1-py3-none-any.whl", &["gpu"]),
            offer("a-1-py3-none-any.whl", &[]),
            offer("d-1-cp27-none-any.whl", &["gpu"]),
        ];
        let (chosen, skipped) = of(&["cpu", "x"], &offers);
        assert_eq!(chosen, ["a-1-py3-none-any.whl", "b-1-py3-none-any.whl"]);
        assert_eq!(skipped, [], "what is meant for others is nobody's business");
        assert_eq!(of(&[], &offers).0, ["a-1-py3-none-any.whl"]);
        assert_eq!(of(&["gpu"], &offers).0.len(), 3);
    }

    #[test]
    fn the_newest_that_fits_is_chosen_and_newer_misfits_are_told() {
        let offers = [
            offer("Foo_Bar-1.9-py3-none-any.whl", &[]),
            offer("foo.bar-1.10-py3-none-any.whl", &[]),
            offer("foo_bar-1.11-cp39-cp39-win_amd64.whl", &[]),
            offer("foo_bar-1.0-cp39-cp39-win_amd64.whl", &[]),
            offer("lost-1.0-cp39-cp39-win_amd64.whl", &[]),
        ];
        let (chosen, skipped) = of(&[], &offers);
        assert_eq!(chosen, ["foo.bar-1.10-py3-none-any.whl"]);
        let unfit = |name: &str| (name.to_owned(), UNFIT.to_owned());
        let expected =
            [unfit("foo_bar-1.11-cp39-cp39-win_amd64.whl"), unfit("lost-1.0-cp39-cp39-win_amd64.whl")];
        assert_eq!(skipped, expected);
    }

    #[test]
    fn of_one_version_the_build_counts_and_then_how_well_it_fits() {
        let any = offer("a-1-py3-none-any.whl", &[]);
        let stable = offer("a-1-cp311-abi3-linux_x86_64.whl", &[]);
        let own = offer("a-1-cp311-cp311-linux_x86_64.whl", &[]);
        let built = offer("a-1-2-py3-none-any.whl", &[]);
        let older = offer("a-1-1-cp311-cp311-linux_x86_64.whl", &[]);
        let all = [any.clone(), own.clone(), stable.clone(), built.clone(), older];
        assert_eq!(of(&[], &all).0, [built.name]);
        assert_eq!(of(&[], &[any.clone(), own.clone(), stable.clone()]).0, [own.name]);
        assert_eq!(of(&[], &[any, stable.clone()]).0, [stable.name]);
    }

    #[test]
    fn what_cannot_be_used_makes_room_for_what_can() {
        let mut refused = offer("a-3-py3-none-any.whl", &[]);
        refused.refused = Some("RECORD lies".into());
        let mut unknown = offer("a-2-py3-none-any.whl", &[]);
        unknown.sha256 = "../x".into();
        let good = offer("a-1-py3-none-any.whl", &[]);
        let odd = offer("a-one.whl", &[]);
        let (chosen, skipped) = of(&[], &[refused, unknown, good, odd]);
        assert_eq!(chosen, ["a-1-py3-none-any.whl"]);
        let reasons: Vec<&str> = skipped.iter().map(|(_, reason)| reason.as_str()).collect();
        assert_eq!(reasons.len(), 3);
        assert_eq!((reasons[1], reasons[0]), ("RECORD lies", "the registry does not tell its SHA-256"));
        assert!(reasons[2].contains("five or six parts"), "{reasons:?}");
    }
}
