//! Which wheels fit the configured interpreter; it is asked once.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::error::Error;
use super::helper::{self, Patience, Python};
use crate::model::wheel::WheelName;

const TAGS: &str = include_str!("host/tags.py");
/// How much of what a failed interpreter has said goes into an error.
const MAX_REASON_CHARS: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    pub version: String,
    /// What it takes, best first: `cp311-cp311-manylinux_2_17_x86_64`.
    tags: Vec<String>,
    ranks: HashMap<String, usize>,
}

#[derive(Deserialize)]
struct Told {
    version: String,
    tags: Vec<String>,
}

impl Interpreter {
    /// Asks it; `place` is any folder that there is.
    pub fn ask(python: &Python, place: &Path, patience: &Patience<'_>) -> Result<Self, Error> {
        Self::told(python, &[], place, patience)
    }

    /// Asks it what it takes as far as the script knows by itself, without any library.
    pub fn ask_without_library(
        python: &Python,
        place: &Path,
        patience: &Patience<'_>,
    ) -> Result<Self, Error> {
        Self::told(python, &[Path::new("own")], place, patience)
    }

    fn told(
        python: &Python,
        arguments: &[&Path],
        place: &Path,
        patience: &Patience<'_>,
    ) -> Result<Self, Error> {
        let error = |reason: String| Error::Interpreter { interpreter: python.program.clone(), reason };
        let said = helper::run(python, TAGS, arguments, place, patience).map_err(|e| error(e.to_string()))?;
        if !said.status.success() {
            let text = String::from_utf8_lossy(&said.err);
            let end: String = text.trim().chars().rev().take(MAX_REASON_CHARS).collect();
            let end: String = end.chars().rev().collect();
            return Err(error(format!("it ended with {}: {end}", said.status)));
        }
        // An interpreter may greet whoever starts it, from its sitecustomize for example.
        let text = said.out.trim_ascii_end();
        let line = text.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let told: Told =
            serde_json::from_slice(line).map_err(|e| error(format!("its answer cannot be read: {e}")))?;
        Ok(Interpreter::new(told.version, told.tags))
    }

    /// One of this version that takes these, best first.
    pub fn new(version: String, tags: Vec<String>) -> Interpreter {
        let ranks = tags.iter().rev().enumerate();
        let last = tags.len();
        let ranks = ranks.map(|(place, tag)| (tag.to_ascii_lowercase(), last - place)).collect();
        Interpreter { version, tags, ranks }
    }

    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// How well a wheel fits, the least being the best; `None` when it does not.
    pub fn rank(&self, name: &WheelName) -> Option<usize> {
        let ranks = name.compatibility();
        ranks.filter_map(|tag| self.ranks.get(&tag.to_ascii_lowercase()).copied()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_a_wheels_tags_counts_in_any_case() {
        let tags = ["cp311-cp311-linux_x86_64", "cp311-abi3-linux_x86_64", "py3-none-any"];
        let python = Interpreter::new("3.11.7".into(), tags.map(str::to_owned).to_vec());
        let rank = |tag: &str| python.rank(&WheelName::parse(&format!("a-1-{tag}.whl")).unwrap());
        assert!(rank("cp311-cp311-linux_x86_64") < rank("cp311-abi3-linux_x86_64"));
        assert!(rank("cp311-abi3-linux_x86_64") < rank("py2.py3-none-any"));
        assert_eq!(rank("PY3-None-Any"), rank("py3-none-any"));
        assert_eq!(rank("cp312-cp312-linux_x86_64"), None);
    }
}
