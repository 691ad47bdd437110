//! The files of the dashboard, as they stand in `assets/`.

use std::sync::LazyLock;

use super::Asset;
use crate::http::cached::Cached;

pub(super) const INDEX: &str = include_str!("assets/index.html");

macro_rules! asset {
    ($name:literal, $content_type:expr) => {
        Asset {
            name: $name,
            file: Cached::new($content_type, include_bytes!(concat!("assets/", $name)).as_slice()),
        }
    };
}

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// All other files. A module that the page imports has to be in here.
pub(super) static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    vec![
        asset!("icon.svg", PICTURE),
        asset!("theme.css", CSS),
        asset!("style.css", CSS),
        asset!("controls.css", CSS),
        asset!("runs.css", CSS),
        asset!("wheels.css", CSS),
        // Runs before the page is painted.
        asset!("theme.js", SCRIPT),
        asset!("main.js", SCRIPT),
        // What all pages stand on.
        asset!("dom.js", SCRIPT),
        asset!("route.js", SCRIPT),
        asset!("i18n.js", SCRIPT),
        asset!("texts.en.js", SCRIPT),
        asset!("texts.ja.js", SCRIPT),
        asset!("format.js", SCRIPT),
        asset!("moving.js", SCRIPT),
        asset!("api.js", SCRIPT),
        asset!("stream.js", SCRIPT),
        asset!("events.js", SCRIPT),
        asset!("figures.js", SCRIPT),
        asset!("filter_bar.js", SCRIPT),
        asset!("fleet.js", SCRIPT),
        asset!("registry.js", SCRIPT),
        asset!("pieces.js", SCRIPT),
        asset!("header.js", SCRIPT),
        // The pages and their parts.
        asset!("runs.js", SCRIPT),
        asset!("runs_filter.js", SCRIPT),
        asset!("runs_limits.js", SCRIPT),
        asset!("runs_list.js", SCRIPT),
        asset!("runs_table.js", SCRIPT),
        asset!("run.js", SCRIPT),
        asset!("story.js", SCRIPT),
        asset!("timeline.js", SCRIPT),
        asset!("timeline_scale.js", SCRIPT),
        asset!("tasks.js", SCRIPT),
        asset!("cancel.js", SCRIPT),
        asset!("run_wheels.js", SCRIPT),
        asset!("workers.js", SCRIPT),
        asset!("worker_wheels.js", SCRIPT),
        asset!("wheels.js", SCRIPT),
        asset!("wheel_names.js", SCRIPT),
        asset!("wheels_table.js", SCRIPT),
        asset!("wheel_upload.js", SCRIPT),
        asset!("wheel_delete.js", SCRIPT),
        asset!("wheel_history.js", SCRIPT),
        asset!("metrics.js", SCRIPT),
        asset!("chart.js", SCRIPT),
        asset!("chart_bars.js", SCRIPT),
        asset!("submit.js", SCRIPT),
    ]
});

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_in_the_folder_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/gateway/page/assets");
        let mut there: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(there.remove("index.html"));
        let served: BTreeSet<String> = ASSETS.iter().map(|asset| asset.name.to_owned()).collect();
        assert_eq!(served, there);
    }

    #[test]
    fn what_is_imported_is_served() {
        for asset in ASSETS.iter().filter(|asset| asset.file.content_type == SCRIPT) {
            let text = std::str::from_utf8(&asset.file.bytes).unwrap();
            for line in text.lines().filter(|line| line.contains(" from \"")) {
                let name = line.split(" from \"./").nth(1).and_then(|rest| rest.split('"').next());
                let name = name.unwrap_or_else(|| panic!("{}: {line}", asset.name));
                assert!(ASSETS.iter().any(|one| one.name == name), "{}: {name}", asset.name);
            }
        }
    }
}
