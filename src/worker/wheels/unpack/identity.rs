//! Whether a wheel is what its file name says.

use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};

use crate::model::wheel::{Metadata, WheelName};
use crate::wheel_archive::DIST_INFO;
use crate::worker::wheels::error::Fault;

/// The one major version of the format that there is.
const WHEEL_MAJOR: &str = "1";

/// Holds the name of the `.dist-info` folder, METADATA and WHEEL against the file name, and what the
/// wheel needs against the version of the interpreter.
pub(super) fn check(
    name: &WheelName,
    dist_info: &str,
    metadata: &str,
    wheel: &str,
    python_version: &str,
) -> Result<(), Fault> {
    let stem = dist_info.strip_suffix(DIST_INFO).unwrap_or(dist_info).rsplit_once('-');
    if !stem.is_some_and(|(package, version)| name.is_of(package, version)) {
        return Err(Fault::Identity(format!("its folder {dist_info} is that of another package or version")));
    }
    let metadata = Metadata::parse(metadata);
    match (metadata.get("Name"), metadata.get("Version")) {
        (Some(package), Some(version)) if name.is_of(package, version) => {}
        (Some(package), Some(version)) => {
            return Err(Fault::Identity(format!(
                "METADATA says that it is {package:?} in version {version:?}"
            )));
        }
        _ => return Err(Fault::Identity("METADATA has no Name or no Version".to_owned())),
    }
    let wheel = Metadata::parse(wheel);
    let format = wheel.get("Wheel-Version").unwrap_or_default();
    if format.split('.').next() != Some(WHEEL_MAJOR) {
        return Err(Fault::Identity(format!("WHEEL says {format:?} as Wheel-Version, not 1.x")));
    }
    match metadata.get("Requires-Python") {
        Some(needs) if !is_met(needs, python_version) => {
            Err(Fault::NeedsPython { needs: needs.to_owned(), version: python_version.to_owned() })
        }
        _ => Ok(()),
    }
}

/// A condition that cannot be read is none, as for pip.
fn is_met(needs: &str, python_version: &str) -> bool {
    match (VersionSpecifiers::from_str(needs), Version::from_str(python_version)) {
        (Ok(needs), Ok(version)) => needs.contains(&version),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHEEL: &str = "Wheel-Version: 1.0\n";

    fn checked(folder: &str, metadata: &str, wheel: &str) -> Result<(), String> {
        let name = WheelName::parse("Foo_Bar-1.0-py3-none-any.whl").unwrap();
        check(&name, folder, metadata, wheel, "3.11.7").map_err(|fault| fault.to_string())
    }

    #[test]
    fn all_that_says_what_it_is_says_the_same() {
        let good = "Name: foo.bar\nVersion: 1.0.0\n";
        for folder in ["Foo_Bar-1.0.dist-info", "foo-bar-1.0.dist-info", "foo.bar-1.dist-info"] {
            assert_eq!(checked(folder, good, WHEEL), Ok(()));
        }
        let folder = "foo_bar-1.0.dist-info";
        for (folder, metadata, wheel, word) in [
            ("foo_bar-1.1.dist-info", good, WHEEL, "folder"),
            ("foo-1.0.dist-info", good, WHEEL, "folder"),
            (".dist-info", good, WHEEL, "folder"),
            (folder, "Name: foo\nVersion: 1.0\n", WHEEL, "METADATA says"),
            (folder, "Name: foo.bar\nVersion: 1.1\n", WHEEL, "METADATA says"),
            (folder, "Name: foo.bar\nVersion: one\n", WHEEL, "METADATA says"),
            (folder, "Name: foo.bar\n", WHEEL, "no Version"),
            (folder, "", WHEEL, "no Name"),
            (folder, good, "Wheel-Version: 2.0\n", "not 1.x"),
            (folder, good, "Wheel-Version: 10.0\n", "not 1.x"),
            (folder, good, "", "not 1.x"),
        ] {
            let told = checked(folder, metadata, wheel).unwrap_err();
            assert!(told.contains(word), "{told}");
        }
    }

    #[test]
    fn a_wheel_for_another_python_says_so() {
        for (needs, is_good) in
            [(">=3.8", true), (">=3.8,<4", true), ("", true), ("odd", true), (">=3.12", false), ("<3", false)]
        {
            let metadata = format!("Name: foo.bar\nVersion: 1.0\nRequires-Python: {needs}\n");
            let told = checked("foo_bar-1.0.dist-info", &metadata, WHEEL);
            assert_eq!(told.is_ok(), is_good, "{needs}: {told:?}");
        }
    }
}
