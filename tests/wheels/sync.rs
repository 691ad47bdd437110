//! From an upload to the code of a run: tags, upgrades, removal, and whatever must change nothing.

use serde_json::{Value, json};

use crate::package::{flows, told};
use crate::race::spoil;
use crate::support::cluster::Cluster;
use crate::support::registry::unpacked;
use crate::support::runs::RUN_DEADLINE;
use crate::support::wait::eventually;
use crate::support::wheel::{Entry, WheelFile, sha256_hex};

const RESOLVER: [&str; 2] = ["--flow-resolver", "flows:resolve_flow"];

#[test]
fn a_wheel_goes_to_the_workers_of_its_tags_and_a_run_says_so() {
    let cluster = Cluster::with_gateway();
    let worker = cluster.spawn_wheel_worker("w1", "text,spare", &RESOLVER);
    let _other = cluster.spawn_wheel_worker("w2", "other", &[]);
    // A job that comes before its code waits for it.
    let early = cluster.submit_flow("text", "main", json!({}));
    cluster.wait_sync("w1", "the resolver is not there", |sync| {
        let error = sync["last_error"].as_str().unwrap_or_default();
        error.starts_with("ERR-PYOCO-0024: ") && error.contains("No module named 'flows'")
    });
    cluster.wait_sync("w2", "nothing to do", |sync| sync["last_result"] == "ok");
    assert_eq!(cluster.get(&format!("/runs/{early}")).json()["status"], "PENDING");
    let wheel = flows("1.0");
    cluster.add_wheel(&wheel, "text");
    cluster.add_wheel(&WheelFile::new("everywhere", "2.0"), "");
    let run = cluster.ended_as(&early, "COMPLETED");
    assert_eq!(told(&run), ("1.0", "1.0"));
    let both = ["everywhere-2.0-py3-none-any.whl", "flows-1.0-py3-none-any.whl"];
    let sync = cluster.wait_installed("w1", &both);
    cluster.wait_sync("w1", "no error any more", |sync| sync["last_error"].is_null());
    assert_eq!((&sync["selected_count"], &sync["selected_wheels"]), (&json!(2), &json!(both)));
    assert_eq!(sync["installed_wheels"][1]["package_version"], "1.0");
    // What the run says is what the worker says.
    let run = cluster.submit_flow("text", "main", json!({}));
    let run = cluster.ended_as(&run, "COMPLETED");
    assert_eq!(run["wheel_generation"], sync["generation"], "{sync}");
    let names: Vec<&Value> =
        run["wheels"].as_array().unwrap().iter().map(|wheel| &wheel["wheel_name"]).collect();
    assert_eq!(names, both);
    assert_eq!(run["wheels"][1]["sha256"], sha256_hex(&wheel.build()));
    let sync = cluster.wait_installed("w2", &both[..1]);
    assert_eq!(sync["selected_count"], 1);
    assert_eq!(worker.unpacked().len(), 2);
    let noted = worker.folder.path().join(".pyoco/wheels/.installed.json");
    let noted: Value = serde_json::from_slice(&std::fs::read(noted).unwrap()).unwrap();
    assert_eq!(noted["generation"], run["wheel_generation"]);
    assert_eq!(noted["wheels"].as_array().unwrap().len(), 2);
}

#[test]
fn runs_finish_on_the_code_with_which_they_have_begun() {
    let cluster = Cluster::with_gateway();
    cluster.add_wheel(&flows("1.0"), "");
    let worker = cluster.spawn_wheel_worker("w1", "default", &RESOLVER);
    cluster.wait_installed("w1", &["flows-1.0-py3-none-any.whl"]);
    let place = tempfile::tempdir().unwrap();
    let (began, go_on) = (place.path().join("began"), place.path().join("go_on"));
    let old = cluster.submit_flow("default", "main", json!({"began": began, "until": go_on}));
    eventually(RUN_DEADLINE, "the old run to have begun", || began.exists().then_some(()));
    let folder_of_old = worker.unpacked();
    cluster.add_wheel(&flows("2.0"), "");
    // The older version stays in the registry, and no worker takes it.
    let sync = cluster.wait_installed("w1", &["flows-2.0-py3-none-any.whl"]);
    assert_eq!((&sync["updated_count"], &sync["removed_count"]), (&json!(1), &json!(1)), "{sync}");
    let new = cluster.submit_flow("default", "main", json!({}));
    let new = cluster.ended_as(&new, "COMPLETED");
    assert_eq!(told(&new), ("2.0", "2.0"));
    assert!(folder_of_old[0].exists(), "the old run still needs its folder");
    std::fs::write(&go_on, "").unwrap();
    let old = cluster.ended_as(&old, "COMPLETED");
    assert_eq!(told(&old), ("1.0", "1.0"));
    assert_ne!(old["wheel_generation"], new["wheel_generation"]);
    eventually(RUN_DEADLINE, "the old folder to be collected", || (!folder_of_old[0].exists()).then_some(()));
    assert_eq!(worker.unpacked().len(), 1);
}

#[test]
fn what_is_deleted_is_gone_and_an_older_version_comes_back() {
    let cluster = Cluster::with_gateway();
    cluster.add_wheel(&flows("1.0"), "");
    cluster.add_wheel(&flows("1.1"), "");
    let worker = cluster.spawn_wheel_worker("w1", "default", &[]);
    let yaml = "version: 1\nflow: {graph: tell}\ntasks: {tell: {callable: 'flows:tell'}}\n";
    let run = |status: &str| cluster.ended_as(&cluster.submit_yaml("default", "main", yaml), status);
    cluster.wait_installed("w1", &["flows-1.1-py3-none-any.whl"]);
    assert_eq!(told(&run("COMPLETED")), ("1.1", "1.1"));
    cluster.delete_wheel("flows-1.1-py3-none-any.whl");
    cluster.wait_installed("w1", &["flows-1.0-py3-none-any.whl"]);
    assert_eq!(told(&run("COMPLETED")), ("1.0", "1.0"));
    cluster.delete_wheel("flows-1.0-py3-none-any.whl");
    let sync = cluster.wait_installed("w1", &[]);
    assert_eq!((&sync["last_result"], &sync["last_error"]), (&json!("ok"), &Value::Null));
    let failed = run("FAILED");
    assert!(failed["error"].as_str().unwrap().contains("flows"), "{failed}");
    eventually(RUN_DEADLINE, "the folders to be collected", || worker.unpacked().is_empty().then_some(()));
}

#[test]
fn a_wheel_that_is_wrong_changes_nothing_for_its_package() {
    let cluster = Cluster::with_gateway();
    let _worker = cluster.spawn_wheel_worker("w1", "default", &[]);
    let good = "flows-1.0-py3-none-any.whl";
    cluster.add_wheel(&flows("1.0"), "");
    cluster.wait_installed("w1", &[good]);
    let slip = Entry::new("../../slip.py", "x");
    let bomb = vec![0; 200 * 1024 * 1024];
    let wrong = [
        (flows("1.1").corrupt_record("flows/late.py"), "RECORD"),
        (flows("1.2").entry(slip), "slip.py"),
        (flows("1.3").file("flows/zeros.bin", bomb), "bytes"),
        (flows("1.4").unlisted(Entry::new("flows/more.py", "x")), "more.py"),
        (flows("1.5").metadata("Version", "1.4"), "1.4"),
        // What it says of itself may be long, and the record has to fit into a message.
        (flows("1.6").metadata("Version", &"1".repeat(3 << 20)), "METADATA says"),
    ];
    for (wheel, words) in wrong {
        let name = wheel.file_name();
        cluster.add_wheel(&wheel, "");
        let sync = cluster.wait_sync("w1", &format!("{name} is refused"), |sync| {
            sync["last_error"].as_str().is_some_and(|error| error.contains(&name))
        });
        let error = sync["last_error"].as_str().unwrap();
        assert!(error.starts_with("ERR-PYOCO-0024: ") && error.contains(words), "{error}");
        assert!(error.len() < 2000, "{} bytes", error.len());
        assert_eq!(sync["last_result"], "error");
        let skipped = &sync["skipped_incompatible"][0];
        assert_eq!((&skipped["wheel_name"], &skipped["package_name"]), (&json!(name), &json!("flows")));
        assert_eq!(sync["installed_wheels"][0]["wheel_name"], good, "{sync}");
        cluster.delete_wheel(&name);
    }
    cluster.wait_sync("w1", "all is well again", |sync| sync["last_result"] == "ok");
    // What does not fit is no error.
    let metrics = || cluster.get("/metrics").text();
    assert!(metrics().contains("pyoco_wheels 1\n"), "{}", metrics());
    eventually(RUN_DEADLINE, "the metrics tell of the worker", || {
        metrics().contains("pyoco_workers_wheel_sync{result=\"ok\"} 1\n").then_some(())
    });
    cluster.add_wheel(&flows("1.7").tag("cp39-cp39-win_amd64"), "");
    let sync =
        cluster.wait_sync("w1", "the misfit is listed", |sync| sync["skipped_incompatible_count"] == 1);
    assert_eq!((&sync["last_result"], &sync["selected_count"]), (&json!("ok"), &json!(1)));
    let reason = sync["skipped_incompatible"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("unsupported_wheel_tags"), "{reason}");
    let yaml = "version: 1\nflow: {graph: tell}\ntasks: {tell: {callable: 'flows:tell'}}\n";
    let run = cluster.ended_as(&cluster.submit_yaml("default", "main", yaml), "COMPLETED");
    assert_eq!(told(&run), ("1.0", "1.0"));
}

#[test]
fn bytes_that_are_damaged_and_code_that_does_not_load_change_nothing() {
    let cluster = Cluster::with_gateway();
    cluster.add_wheel(&flows("1.0"), "");
    let _worker = cluster.spawn_wheel_worker("w1", "default", &RESOLVER);
    cluster.wait_installed("w1", &["flows-1.0-py3-none-any.whl"]);
    let still_runs = || {
        let run = cluster.submit_flow("default", "main", json!({}));
        assert_eq!(told(&cluster.ended_as(&run, "COMPLETED")), ("1.0", "1.0"));
    };
    let broken = WheelFile::new("flows", "2.0").file("flows/__init__.py", "import nowhere_at_all\n");
    cluster.add_wheel(&broken, "");
    let sync = cluster.wait_sync("w1", "the new code does not load", |sync| {
        sync["last_error"].as_str().is_some_and(|error| error.contains("nowhere_at_all"))
    });
    assert_eq!(sync["installed_wheels"][0]["package_version"], "1.0", "{sync}");
    still_runs();
    cluster.delete_wheel(&broken.file_name());
    cluster.wait_sync("w1", "all is well again", |sync| sync["last_result"] == "ok");
    // A chunk is damaged before a second worker gets to see the wheel.
    let damaged = flows("3.0");
    cluster.add_wheel(&damaged, "late");
    let nuid = cluster.bus.wheels().find(&damaged.file_name()).unwrap().unwrap().nuid;
    spoil(&cluster, &nuid);
    let _late = cluster.spawn_wheel_worker("w2", "late", &[]);
    let sync = cluster.wait_sync("w2", "the damage is told", |sync| {
        sync["last_error"].as_str().is_some_and(|error| error.contains(&damaged.file_name()))
    });
    assert_eq!((&sync["last_result"], &sync["installed_wheels"]), (&json!("error"), &json!([])));
    cluster.delete_wheel(&damaged.file_name());
    cluster.wait_installed("w2", &["flows-1.0-py3-none-any.whl"]);
    cluster.add_wheel(&flows("3.1"), "");
    cluster.wait_installed("w1", &["flows-3.1-py3-none-any.whl"]);
    cluster.wait_installed("w2", &["flows-3.1-py3-none-any.whl"]);
}

#[test]
fn entry_points_and_namespace_packages_work_and_missing_modules_are_named() {
    let cluster = Cluster::with_gateway();
    let shout = "def shout(ctx, text): return text.upper()\n\
        def register(registry): registry.task(shout, name='shout')\n";
    let one = WheelFile::new("space_one", "1.0")
        .file("space/one.py", shout)
        .entry_points("[pyoco.tasks]\none = space.one:register\n");
    let two = WheelFile::new("space_two", "1.0")
        .file("space/two.py", "from space.one import shout\ndef both(ctx): return shout(ctx, 'two')\n")
        .file("space/lonely.py", "import not_uploaded\ndef alone(ctx): pass\n");
    cluster.add_wheel(&one, "");
    cluster.add_wheel(&two, "");
    let _worker = cluster.spawn_wheel_worker("w1", "default", &[]);
    cluster.wait_installed("w1", &[&one.file_name(), &two.file_name()]);
    let run = |tasks: &str| format!("version: 1\nflow: {{graph: a}}\ntasks: {{a: {{{tasks}}}}}\n");
    let used = cluster.submit_yaml("default", "main", &run("use: shout, inputs: {text: hello}"));
    let end = cluster.ended_as(&used, "COMPLETED");
    assert_eq!(end["task_records"]["a"]["output"], "HELLO");
    let called = cluster.submit_yaml("default", "main", &run("callable: 'space.two:both'"));
    assert_eq!(cluster.ended_as(&called, "COMPLETED")["task_records"]["a"]["output"], "TWO");
    let lonely = cluster.submit_yaml("default", "main", &run("callable: 'space.lonely:alone'"));
    let end = cluster.ended_as(&lonely, "FAILED");
    assert!(end["error"].as_str().unwrap().contains("not_uploaded"), "{end}");
}

#[test]
fn wheels_that_are_removed_from_the_disk_come_back() {
    let cluster = Cluster::with_gateway();
    cluster.add_wheel(&flows("1.0"), "");
    let worker = cluster.spawn_wheel_worker("w1", "default", &RESOLVER);
    let installed = cluster.wait_installed("w1", &["flows-1.0-py3-none-any.whl"]);
    let dir = worker.folder.path().join(".pyoco/wheels");
    let pyoco = dir.parent().unwrap();
    let allow = std::process::Command::new("chmod").args(["-R", "u+w"]).arg(pyoco).status();
    assert!(allow.unwrap().success());
    std::fs::remove_dir_all(pyoco).unwrap();
    cluster.wait_sync("w1", "the wheel is unpacked anew", |sync| {
        let at = |sync: &Value| sync["installed_wheels"][0]["installed_at"].as_f64();
        sync["last_result"] == "ok" && at(sync) > at(&installed)
    });
    let run = cluster.submit_flow("default", "main", json!({}));
    assert_eq!(told(&cluster.ended_as(&run, "COMPLETED")), ("1.0", "1.0"));
    assert_eq!(worker.unpacked().len(), 1);
}

#[test]
fn workers_share_a_folder_and_a_restart_needs_no_registry() {
    let cluster = Cluster::with_gateway();
    let shared = tempfile::tempdir().unwrap();
    let dir = shared.path().join("wheels");
    let flags = ["--wheel-sync-dir", dir.to_str().unwrap()];
    let flags = [&flags[..], &RESOLVER].concat();
    let wheel = flows("1.0");
    cluster.add_wheel(&wheel, "");
    let mut one = cluster.spawn_wheel_worker("w1", "a", &flags);
    let two = cluster.spawn_wheel_worker("w2", "b", &flags);
    for id in ["w1", "w2"] {
        cluster.wait_installed(id, &[&wheel.file_name()]);
    }
    assert_eq!(unpacked(&dir).len(), 1);
    // It dies without a word; nobody could fetch the wheel again.
    one.process.kill();
    let nuid = cluster.bus.wheels().find(&wheel.file_name()).unwrap().unwrap().nuid;
    spoil(&cluster, &nuid);
    one.restart();
    for tag in ["a", "b"] {
        let run = cluster.submit_flow(tag, "main", json!({}));
        assert_eq!(told(&cluster.ended_as(&run, "COMPLETED")), ("1.0", "1.0"));
    }
    // What the one has given up the other may still need.
    cluster.add_wheel(&flows("2.0"), "a");
    cluster.wait_installed("w1", &["flows-2.0-py3-none-any.whl"]);
    let run = cluster.submit_flow("b", "main", json!({}));
    assert_eq!(told(&cluster.ended_as(&run, "COMPLETED")), ("1.0", "1.0"));
    assert_eq!(unpacked(&dir).len(), 2);
    assert_eq!(cluster.wheel_sync(&two.id)["last_result"], "ok");
}
