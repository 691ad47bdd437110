//! How flows in Python are executed: which interpreter, whose flows, within which bounds.

use super::reader::Reader;
use crate::model::name;

/// Least memory limit: an interpreter that has loaded pyoco does not fit into less.
const MIN_MEMORY: u64 = 16 << 20;
/// Largest memory limit, beyond any machine.
const MAX_MEMORY: u64 = 1024 << 40;
/// In the place of a program: this worker executes no Python.
const OFF: &str = "off";
/// Variables that no flow sees, whatever the settings say: our own, what tools of NATS read, and what systemd
/// tells this process alone.
const WITHHELD: [&str; 5] = ["PYOCO_", "NATS_", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// How flows in Python are executed.
#[derive(Debug, Clone, PartialEq)]
pub struct PythonConfig {
    /// The Python program, by name or path; see also [`PythonConfig::is_off`].
    pub interpreter: String,
    /// Finds a flow by its name: `module:function` or `file.py:function`.
    pub resolver: Option<String>,
    /// Most memory of one run's process, in bytes.
    pub memory_limit: Option<u64>,
    /// Variables that flows see beside those they always see; see [`PythonConfig::shows`].
    pub env: Vec<String>,
}

impl PythonConfig {
    /// Whether this worker is to execute no Python, neither of a resolver nor of a document.
    pub fn is_off(&self) -> bool {
        self.interpreter == OFF
    }

    /// Whether the settings let flows see `variable`: it is named, or begins with a prefix that is
    /// named with a trailing `*`. Never one of ours, nor one that may hold NATS credentials.
    pub fn shows(&self, variable: &str) -> bool {
        !is_withheld(variable) && self.env.iter().any(|pattern| name::matches_pattern(pattern, variable))
    }
}

pub(super) fn python(r: &mut Reader<'_>) -> PythonConfig {
    PythonConfig {
        interpreter: r.string("PYOCO_PYTHON", "python3"),
        resolver: r.parsed("PYOCO_FLOW_RESOLVER", "", None, |text| parse_resolver(text).map(Some)),
        memory_limit: r.parsed("PYOCO_RUN_MEMORY_LIMIT", "", None, |text| parse_memory_limit(text).map(Some)),
        env: r.parsed("PYOCO_RUN_ENV", "", Vec::new(), |text| {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            entries.map(parse_env_entry).collect()
        }),
    }
}

/// A program's name or path.
pub fn parse_interpreter(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("must name a program, such as python3 or .venv/bin/python, or be `off`".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// `module:function` or `file.py:function`; whether it exists shows when it is loaded.
pub fn parse_resolver(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_dotted = |text: &str| text.split('.').all(is_identifier);
    let is_resolver = text.rsplit_once(':').is_some_and(|(place, function)| {
        let is_file = place.len() > ".py".len() && place.ends_with(".py");
        (is_file || is_dotted(place)) && is_dotted(function)
    });
    match is_resolver {
        true => Ok(text.to_owned()),
        false => Err("must be module:function or file.py:function".to_owned()),
    }
}

/// A number of bytes: `800000000`, `512M`, `1.5GiB`; K, M, G and T are powers of 1024.
pub fn parse_memory_limit(text: &str) -> Result<u64, String> {
    let problem = || "must be a size from 16M to 1024T, such as 512M, 1.5GiB or 800000000";
    bytes(text.trim())
        .filter(|size| (MIN_MEMORY..=MAX_MEMORY).contains(size))
        .ok_or_else(|| problem().to_owned())
}

/// The name of a variable that flows may see, or a prefix of names with a trailing `*`.
pub fn parse_env_entry(text: &str) -> Result<String, String> {
    let text = text.trim();
    let name = text.strip_suffix('*').unwrap_or(text);
    let is_prefix_of_all = name.is_empty() && text == "*";
    if !is_prefix_of_all && !is_variable(name) {
        return Err("must be names of variables, or prefixes of names with a trailing *".to_owned());
    }
    if is_withheld(name) {
        return Err(format!(
            "`{text}` may hold a secret of this worker, or is for it alone; flows do not see it"
        ));
    }
    Ok(text.to_owned())
}

fn is_withheld(variable: &str) -> bool {
    WITHHELD.iter().any(|prefix| variable.starts_with(prefix))
}

fn is_variable(name: &str) -> bool {
    is_identifier(name) && name.is_ascii()
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

fn bytes(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let shift = match unit.trim_start().to_ascii_uppercase().as_str() {
        "" | "B" => return number.parse().ok(),
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return None,
    };
    // Exact far beyond the largest size that is taken; a larger one saturates.
    let size = number.parse::<f64>().ok()? * (1_u64 << shift) as f64;
    Some(size as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Source};

    #[test]
    fn sizes_are_read_with_binary_multiples() {
        for (text, size) in [
            ("512M", 512 << 20),
            ("1g", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("800000000", 800_000_000),
            ("16384 KiB", 16 << 20),
            ("1024T", MAX_MEMORY),
            ("33554432B", 32 << 20),
        ] {
            assert_eq!(parse_memory_limit(text), Ok(size), "{text}");
        }
        for text in ["", "15M", "16777215", "1.5", "1.2.3G", "M", "-1G", "1e9", "infG", "1GG", "9999999T"] {
            assert!(parse_memory_limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_resolver_names_a_place_and_a_function() {
        for text in ["flows:resolve", "my.flows:get.flow", "/a b/é.py:resolve", "a:b.py:main"] {
            assert_eq!(parse_resolver(text), Ok(text.to_owned()));
        }
        for text in ["", "flows", "flows:", ":f", ".py:f", "a/b:f", "a..b:f", "a:1f", "a: f"] {
            assert!(parse_resolver(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flows_see_what_is_named_and_never_our_secrets() {
        let load = |text| Config::load(&Source::from_pairs([("PYOCO_RUN_ENV", text)]));
        let python = load(" AWS_REGION, MODEL_* ,").config.python;
        assert_eq!(python.env, ["AWS_REGION", "MODEL_*"]);
        for (name, expected) in [
            ("AWS_REGION", true),
            ("AWS_REGION_2", false),
            ("MODEL_", true),
            ("MODEL_DIR", true),
            ("HOME", false),
        ] {
            assert_eq!(python.shows(name), expected, "{name}");
        }
        for text in ["*", "PYO*,NAT*,N*,P*"] {
            let python = load(text).config.python;
            for name in
                ["PYOCO_NATS_TOKEN", "PYOCO_AUTH_PEPPER", "NATS_PASSWORD", "NATS_CREDS", "NOTIFY_SOCKET"]
            {
                assert!(!python.shows(name), "{text} {name}");
            }
            assert!(python.shows("PATH"), "{text}");
        }
        for text in ["PYOCO_RUN_ENV", "PYOCO_*", "NATS_URL", "A B", "A**", "*A", "A=1", "1A"] {
            let loaded = load(text);
            assert_eq!(loaded.warnings.len(), 1, "{text}");
            assert!(loaded.config.python.env.is_empty(), "{text}");
        }
    }

    #[test]
    fn nothing_is_shown_and_nothing_is_bound_by_default() {
        let python = Config::default().python;
        assert_eq!(python.interpreter, "python3");
        assert_eq!((python.resolver.as_deref(), python.memory_limit), (None, None));
        assert!(!python.shows("PATH") && !python.shows(""));
    }
}
