//! Which variables of the worker's environment flows see.

use std::ffi::OsString;

use crate::model::name;

/// What programs need to find their files, their language and their certificates, and what pyoco
/// itself reads. A name that ends in `*` stands for all that begin so.
const ALWAYS: &str = "PATH HOME USER LOGNAME SHELL PWD LANG LANGUAGE LC_* TZ TERM TMPDIR TEMP TMP XDG_* \
    LD_LIBRARY_PATH VIRTUAL_ENV CONDA_* PYTHON* PYENV_* SSL_CERT_FILE SSL_CERT_DIR \
    REQUESTS_CA_BUNDLE CURL_CA_BUNDLE HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY \
    OMP_NUM_THREADS OPENBLAS_* MKL_NUM_THREADS PYOCO_DISCOVERY_MODULES PYOCO_CUTE";

/// The part of `environment` that flows may see: what programs need, and what `shows` adds by name.
pub fn visible_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    shows: impl Fn(&str) -> bool,
) -> Vec<(OsString, OsString)> {
    let is_needed = |variable: &str| {
        // Proxies are set in either case.
        let upper = variable.to_ascii_uppercase();
        let variable = if upper.ends_with("_PROXY") { &upper } else { variable };
        ALWAYS.split(' ').any(|pattern| name::matches_pattern(pattern, variable))
    };
    environment
        .into_iter()
        .filter(|(name, _)| name.to_str().is_some_and(|name| is_needed(name) || shows(name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_see_what_programs_need_and_what_is_added() {
        let environment = "PATH LC_ALL https_proxy DB_URL NATS_TOKEN PYOCO_NATS_PASSWORD \
            PYOCO_DISCOVERY_MODULES"
            .split(' ')
            .map(|name| (OsString::from(name), OsString::from("value")));
        let seen: Vec<_> = visible_environment(environment, |name| name == "DB_URL")
            .into_iter()
            .map(|(name, _)| name.into_string().unwrap())
            .collect();
        assert_eq!(seen, ["PATH", "LC_ALL", "https_proxy", "DB_URL", "PYOCO_DISCOVERY_MODULES"]);
    }
}
