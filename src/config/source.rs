//! Where values come from: the environment, then a `.env` file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::dotenv;

/// Largest `.env` file that is read.
const MAX_ENV_FILE_BYTES: u64 = 1024 * 1024;

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A variable of the process.
    Environment,
    /// A line of the `.env` file; the environment had no such variable.
    EnvFile,
    /// Neither of them has the variable: the value is the default.
    Default,
}

/// Values by name, with their origin. Empty values are not in it.
#[derive(Debug, Clone, Default)]
pub struct Source {
    values: BTreeMap<String, (String, Origin)>,
    problems: Vec<String>,
}

impl Source {
    /// The process environment; what it leaves unset comes from the file `PYOCO_ENV_FILE`
    /// (default `.env`) unless `PYOCO_LOAD_DOTENV` is off. A missing file is fine.
    pub fn from_process() -> Self {
        // A variable whose value is not UTF-8 cannot be one of ours.
        let mut source = Source::from_pairs(
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
        );
        let enabled = source.get("PYOCO_LOAD_DOTENV").is_none_or(|(text, _)| {
            !matches!(text.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off")
        });
        if enabled {
            let named = source.get("PYOCO_ENV_FILE").map(|(text, _)| PathBuf::from(text));
            source.add_file(named.unwrap_or_else(|| PathBuf::from(".env")));
        }
        source
    }

    /// Values as if they stood in the environment.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let values = pairs
            .into_iter()
            .map(|(k, v)| (k.into(), v.into()))
            .filter(|(_, v): &(String, String)| !v.trim().is_empty())
            .map(|(k, v)| (k, (v, Origin::Environment)))
            .collect();
        Source { values, problems: Vec::new() }
    }

    /// A value and its origin.
    pub fn get(&self, name: &str) -> Option<(&str, Origin)> {
        self.values.get(name).map(|(text, origin)| (text.as_str(), *origin))
    }

    /// What was wrong with the `.env` file.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Adds what the text of a `.env` file says and the environment leaves unset.
    pub fn add_text(&mut self, text: &str) {
        for line in dotenv::parse(text) {
            match line {
                Ok((key, value)) if !value.trim().is_empty() => {
                    self.values.entry(key).or_insert((value, Origin::EnvFile));
                }
                Ok(_) => {}
                Err(problem) => self.problems.push(problem),
            }
        }
    }

    fn add_file(&mut self, path: PathBuf) {
        let shown = path.display();
        match std::fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => self.problems.push(format!("cannot read {shown}: {e}")),
            Ok(meta) if meta.len() > MAX_ENV_FILE_BYTES => {
                self.problems.push(format!("{shown} is larger than {MAX_ENV_FILE_BYTES} bytes"));
            }
            Ok(_) => match std::fs::read_to_string(&path) {
                Ok(text) => self.add_text(&text),
                Err(e) => self.problems.push(format!("cannot read {shown}: {e}")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins_over_the_file() {
        let mut source = Source::from_pairs([("A", "env"), ("B", "")]);
        source.add_text("A=file\nB=file\nC=file\n");
        assert_eq!(source.get("A"), Some(("env", Origin::Environment)));
        assert_eq!(source.get("B"), Some(("file", Origin::EnvFile)));
        assert_eq!(source.get("C"), Some(("file", Origin::EnvFile)));
        assert_eq!(source.get("D"), None);
    }
}
