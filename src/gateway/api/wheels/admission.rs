//! Whether a wheel may come into the registry, beside those that are there.

use crate::gateway::api::error::ApiError;
use crate::model::wheel::WheelName;

/// A name that is no wheel's is passed over. Builds and platforms do not count: a version comes once.
pub fn decide<'a>(
    there: impl IntoIterator<Item = &'a str>,
    new: &WheelName,
    replace: bool,
) -> Result<(), ApiError> {
    let mut newest: Option<WheelName> = None;
    for name in there {
        if name == new.file_name && !replace {
            return Err(conflict("wheel already exists", name));
        }
        let Ok(known) = WheelName::parse(name) else { continue };
        if known.package != new.package {
            continue;
        }
        if known.version == new.version {
            return Err(conflict("wheel version already exists; bump version", name));
        }
        if newest.as_ref().is_none_or(|newest| known.version > newest.version) {
            newest = Some(known);
        }
    }
    match newest {
        Some(newest) if newest.version > new.version => {
            Err(conflict("wheel version must be greater than existing latest version", &newest.file_name))
        }
        _ => Ok(()),
    }
}

fn conflict(detail: &'static str, there: &str) -> ApiError {
    ApiError::WheelConflict { detail, reason: format!("the registry has {there}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_must_be_above_all_of_its_package() {
        let there = ["a-1.0-py3-none-any.whl", "A_-1.2-py3-none-any.whl", "b-9-py3-none-any.whl", "junk"];
        let there =
            ["a_b-1.0-py3-none-any.whl", "A.B-1.2-cp311-cp311-linux_x86_64.whl"].into_iter().chain(there);
        let verdict = |name: &str, replace| {
            let name = WheelName::parse(name).unwrap();
            match decide(there.clone(), &name, replace) {
                Ok(()) => "ok".to_owned(),
                Err(ApiError::WheelConflict { detail, reason }) => format!("{detail} ({reason})"),
                Err(other) => panic!("{other}"),
            }
        };
        let exists = "wheel version already exists; bump version (the registry has A.B-1.2-cp311-cp311-linux_x86_64.whl)";
        let lower = "wheel version must be greater than existing latest version (the registry has A.B-1.2-cp311-cp311-linux_x86_64.whl)";
        for (name, replace, expected) in [
            ("a_b-1.3-py3-none-any.whl", true, "ok"),
            ("a_b-1.2.post1-py3-none-any.whl", false, "ok"),
            ("c-0.1-py3-none-any.whl", false, "ok"),
            ("a_b-1.2-py3-none-any.whl", true, exists),
            ("a_b-1.2.0-7-py3-none-any.whl", false, exists),
            ("a_b-1.2rc1-py3-none-any.whl", true, lower),
            ("a_b-1.1-py3-none-any.whl", true, lower),
            (
                "a_b-1.0-py3-none-any.whl",
                false,
                "wheel already exists (the registry has a_b-1.0-py3-none-any.whl)",
            ),
            (
                "a_b-1.0.0-py3-none-any.whl",
                true,
                "wheel version already exists; bump version (the registry has a_b-1.0-py3-none-any.whl)",
            ),
        ] {
            assert_eq!(verdict(name, replace), expected, "{name}");
        }
    }
}
