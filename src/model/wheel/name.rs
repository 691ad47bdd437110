//! What the file name of a wheel says: package, version, and which Pythons it fits.

use std::cmp::Ordering;

use pep440_rs::Version;

use crate::model::limits::MAX_WHEEL_NAME_BYTES;

const EXTENSION: &str = ".whl";

/// The file name of a wheel, taken apart (binary distribution format of PyPA, PEP 427).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WheelName {
    pub file_name: String,
    /// The package's name in its one normal form; see [`normalized`].
    pub package: String,
    pub version: Version,
    /// Breaks ties between wheels of one version: digits, then anything.
    pub build: Option<(u64, String)>,
    /// What runs it: `py3`, `cp311`; one of them suffices.
    pub pythons: Vec<String>,
    /// Which binary interface it needs: `none`, `abi3`, `cp311`.
    pub abis: Vec<String>,
    /// Where it runs: `any`, `manylinux_2_17_x86_64`.
    pub platforms: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It does not end in `.whl`, is too long, or has bytes that no file name of a wheel has.
    #[error("not a file name such as package-1.0-py3-none-any.whl")]
    NotAWheel,
    /// It has too few or too many parts between dashes.
    #[error(
        "a wheel's file name has five or six parts between dashes: package-version(-build)-python-abi-platform.whl"
    )]
    Parts,
    #[error("`{0}` is not a version (PEP 440)")]
    Version(String),
    #[error("`{0}` is not a build number: it must begin with a digit")]
    Build(String),
}

impl WheelName {
    pub fn parse(file_name: &str) -> Result<WheelName, NameError> {
        let is_good = |b: u8| b.is_ascii_alphanumeric() || b"-_.+!".contains(&b);
        let stem = file_name
            .strip_suffix(EXTENSION)
            .filter(|stem| stem.len() + EXTENSION.len() <= MAX_WHEEL_NAME_BYTES)
            .filter(|stem| stem.bytes().all(is_good) && !stem.is_empty() && !stem.starts_with('.'))
            .ok_or(NameError::NotAWheel)?;
        let parts: Vec<&str> = stem.split('-').collect();
        let (package, version, build, [pythons, abis, platforms]) = match parts[..] {
            [package, version, a, b, c] => (package, version, None, [a, b, c]),
            [package, version, build, a, b, c] => (package, version, Some(build), [a, b, c]),
            _ => return Err(NameError::Parts),
        };
        // Of the dashes, dots and underscores in a package's name a file name has one underscore each.
        let is_escaped = !package.contains("__");
        if !is_escaped || ![package, pythons, abis, platforms].iter().all(|part| is_name(part)) {
            return Err(NameError::Parts);
        }
        // Tags are compared in lower case, in which everybody else writes them.
        let list = |part: &str| part.split('.').map(str::to_ascii_lowercase).collect();
        Ok(WheelName {
            file_name: file_name.to_owned(),
            package: normalized(package),
            version: version.parse().map_err(|_| NameError::Version(version.to_owned()))?,
            build: build.map(build_number).transpose()?,
            pythons: list(pythons),
            abis: list(abis),
            platforms: list(platforms),
        })
    }

    /// `python-abi-platform`, one by one: it fits a Python that has any of them.
    pub fn compatibility(&self) -> impl Iterator<Item = String> {
        self.pythons.iter().flat_map(move |python| {
            self.abis.iter().flat_map(move |abi| {
                self.platforms.iter().map(move |platform| format!("{python}-{abi}-{platform}"))
            })
        })
    }

    /// Whether `text` is its version, however both are written.
    pub fn is_version(&self, text: &str) -> bool {
        text.parse::<Version>().is_ok_and(|version| version == self.version)
    }

    /// Whether it is that of this version of this package, as folders and METADATA write them.
    pub fn is_of(&self, package: &str, version: &str) -> bool {
        // Where a version has a dash, names of files and folders have an underscore.
        normalized(package) == self.package && self.is_version(&version.replace('_', "-"))
    }

    /// Which of two wheels of one package is newer: the version counts, then the build.
    pub fn age(&self, other: &WheelName) -> Ordering {
        self.version.cmp(&other.version).then_with(|| self.build.cmp(&other.build))
    }
}

/// The one form of a package's name: `Foo.Bar__baz` and `foo-bar-baz` are the same (PEP 503).
pub fn normalized(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}

fn is_name(part: &str) -> bool {
    let bytes = part.as_bytes();
    let ends_well = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    ends_well(bytes.first())
        && ends_well(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
}

fn build_number(text: &str) -> Result<(u64, String), NameError> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let number = digits.parse().map_err(|_| NameError::Build(text.to_owned()))?;
    Ok((number, rest.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_says_what_it_is() {
        let name = WheelName::parse("Foo_Bar-1!1.0rc1+cpu-1b-py2.py3-None-any.whl").unwrap();
        assert_eq!((name.package.as_str(), name.version.to_string()), ("foo-bar", "1!1.0rc1+cpu".into()));
        assert_eq!(name.build, Some((1, "b".into())));
        assert_eq!(name.compatibility().collect::<Vec<_>>(), ["py2-none-any", "py3-none-any"]);
        assert_eq!(
            WheelName::parse("a-1.0_post1+b_c-py3-none-any.whl").unwrap().version.to_string(),
            "1.0.post1+b.c"
        );
    }

    #[test]
    fn newer_is_what_pep_440_says() {
        let ages = [
            "1.0.dev1",
            "1.0a1",
            "1.0rc1",
            "1.0",
            "1.0-1",
            "1.0-2b",
            "1.0+local",
            "1.0.post1",
            "1.9",
            "1.10",
            "1!0.1",
        ];
        let names: Vec<_> =
            ages.iter().map(|age| WheelName::parse(&format!("a-{age}-py3-none-any.whl")).unwrap()).collect();
        for pair in names.windows(2) {
            assert_eq!(pair[0].age(&pair[1]), Ordering::Less, "{} {}", pair[0].file_name, pair[1].file_name);
        }
    }

    #[test]
    fn what_is_no_name_of_a_wheel_is_told_apart() {
        use NameError::{Build, NotAWheel, Parts, Version};
        for (text, error) in [
            ("", NotAWheel),
            ("a.zip", NotAWheel),
            ("a-1.0-py3-none-any.whl\n", NotAWheel),
            ("../a-1.0-py3-none-any.whl", NotAWheel),
            ("a b-1.0-py3-none-any.whl", NotAWheel),
            ("a-1.0-py3-none-any.WHL", NotAWheel),
            (".whl", NotAWheel),
            ("a__b-1.0-py3-none-any.whl", Parts),
            ("a-1.0_1-py3-none-any.whl", Version("1.0_1".into())),
            ("a-1.0.whl", Parts),
            ("a-1.0-py3-none.whl", Parts),
            ("a-1.0-1-x-py3-none-any.whl", Parts),
            ("-1.0-py3-none-any.whl", Parts),
            ("_a-1.0-py3-none-any.whl", Parts),
            ("a-one-py3-none-any.whl", Version("one".into())),
            ("a-1.0-x1-py3-none-any.whl", Build("x1".into())),
        ] {
            assert_eq!(WheelName::parse(text), Err(error), "{text:?}");
        }
        let long = format!("{}-1.0-py3-none-any.whl", "a".repeat(MAX_WHEEL_NAME_BYTES));
        assert_eq!(WheelName::parse(&long), Err(NotAWheel));
    }

    #[test]
    fn a_package_has_one_name() {
        for name in ["foo-bar", "Foo_Bar", "foo.bar", "FOO-_.bar"] {
            assert_eq!(normalized(name), "foo-bar", "{name}");
        }
    }
}
