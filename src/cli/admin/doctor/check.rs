//! The lines that `doctor` prints (`docs/operations.md#what-doctor-finds`).

use serde_json::{Value, json};

/// What was found out about one thing.
pub struct Check {
    line: Value,
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl Check {
    pub fn new(name: impl Into<String>) -> Check {
        Check { line: json!({"check": name.into(), "ok": true}), errors: Vec::new(), warnings: Vec::new() }
    }

    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Check {
        self.line[key] = value.into();
        self
    }

    /// What is not as it should be, and the way out.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// What does not work, and the way out.
    pub fn fail(&mut self, text: impl ToString) {
        self.errors.push(text.to_string());
    }

    pub fn failed(mut self, text: impl ToString) -> Check {
        self.fail(text);
        self
    }
}

/// All lines.
#[derive(Default)]
pub struct Report {
    text: String,
    has_errors: bool,
}

impl Report {
    pub fn add(&mut self, check: Check) {
        let Check { mut line, errors, warnings } = check;
        if !errors.is_empty() {
            self.has_errors = true;
            line["ok"] = false.into();
            line["error"] = errors.join("; ").into();
        }
        if !warnings.is_empty() {
            line["warning"] = warnings.join("; ").into();
        }
        self.text.push_str(&format!("{line}\n"));
    }

    pub fn extend(&mut self, checks: impl IntoIterator<Item = Check>) {
        checks.into_iter().for_each(|check| self.add(check));
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn all_ok(&self) -> bool {
        !self.has_errors
    }
}
