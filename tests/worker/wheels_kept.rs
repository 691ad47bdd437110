//! Folders of wheels over time: races, restarts, crashes, and what is removed when.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Barrier;
use std::time::{Duration, Instant, SystemTime};

use pyoco_server::worker::wheels::{Error, Fault, Generation, Impatience, Offer};

use crate::support::wheel::WheelFile;
use crate::support::wheel_sync::{WheelSync, make_writable, offer};

fn wheel(version: &str) -> WheelFile {
    WheelFile::new("foo", version).file("foo/__init__.py", format!("V = '{version}'\n"))
}

#[test]
fn an_upgrade_is_another_folder_and_the_old_one_goes_with_its_last_user() {
    let mut worker = WheelSync::new();
    let old = worker.sync(&[wheel("1.0")]).unwrap().generation;
    old.remember(&worker.folders()).unwrap();
    let new = worker.sync(&[wheel("1.0"), wheel("1.1")]).unwrap().generation;
    new.remember(&worker.folders()).unwrap();
    assert_ne!(old.set.generation, new.set.generation);
    let script = "import foo; print(foo.V)";
    assert_eq!(worker.python(&old.paths, script), "1.0");
    assert_eq!(worker.python(&new.paths, script), "1.1");
    assert_eq!(worker.folders().collect().unwrap(), 0, "a run may still use the old one");
    let path = old.paths[0].clone();
    drop(old);
    assert_eq!(worker.folders().collect().unwrap(), 1);
    assert!(!path.exists() && !path.with_extension("lock").exists());
    assert_eq!(worker.python(&new.paths, script), "1.1");
    // What is remembered stays, though nobody holds it.
    let path = new.paths[0].clone();
    drop(new);
    assert_eq!(worker.folders().collect().unwrap(), 0);
    assert!(path.is_dir());
}

#[test]
fn the_same_wheels_are_the_same_generation_and_are_not_fetched_again() {
    let mut worker = WheelSync::new();
    let wheels = [WheelFile::new("b", "1"), WheelFile::new("C", "1"), WheelFile::new("a", "1")];
    let first = worker.sync(&wheels).unwrap().generation;
    let again = worker.sync(&wheels).unwrap().generation;
    assert_eq!((first.set.clone(), worker.fetched), (again.set.clone(), 3));
    assert_eq!(first.installed, again.installed, "since when it is there stays");
    let packages: Vec<&str> = first.set.wheels.iter().map(|w| w.package_name.as_str()).collect();
    assert_eq!(packages, ["a", "b", "c"]);
    let fewer = worker.sync(&wheels[..2]).unwrap().generation;
    assert_ne!(fewer.set.generation, first.set.generation);
    assert_eq!(worker.sync(&[]).unwrap().generation.paths.len(), 0);
}

#[test]
fn a_worker_that_starts_again_goes_on_with_what_it_had() {
    let mut worker = WheelSync::new();
    assert!(Generation::last(&worker.folders(), &worker.patience()).unwrap().is_none());
    let wheels = [wheel("1.0"), WheelFile::new("bar", "1.0")];
    let before = worker.sync(&wheels).unwrap().generation;
    before.remember(&worker.folders()).unwrap();
    let (set, installed) = (before.set.clone(), before.installed.clone());
    let bar = before.paths[0].clone();
    drop(before);
    let after = Generation::last(&worker.folders(), &worker.patience()).unwrap().unwrap();
    assert_eq!((&after.set, &after.installed), (&set, &installed));
    assert_eq!(worker.folders().collect().unwrap(), 0);
    let text = fs::read_to_string(worker.root().join(".installed.json")).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["generation"], set.generation.as_str());
    assert_eq!(shown["wheels"][0]["wheel_name"], "bar-1.0-py3-none-any.whl");
    assert_eq!(shown["wheels"][0]["nuid"], "nuid");
    drop(after);
    // A worker of another kind has nothing to do with it.
    worker.tags = vec!["gpu".to_owned()];
    assert!(Generation::last(&worker.folders(), &worker.patience()).unwrap().is_none());
    assert_eq!(worker.folders().collect().unwrap(), 0);
    worker.tags = vec!["cpu".to_owned()];
    // Somebody has removed a folder by hand.
    make_writable(&bar);
    fs::remove_dir_all(&bar).unwrap();
    assert!(Generation::last(&worker.folders(), &worker.patience()).unwrap().is_none());
}

#[test]
fn what_nobody_uses_makes_room_before_another_wheel_is_fetched() {
    let mut worker = WheelSync::new();
    let old = worker.sync(&[wheel("1.0")]).unwrap().generation.paths[0].clone();
    let (bar, foo) = (WheelFile::new("bar", "1.0"), wheel("1.1"));
    let ready = worker.sync(std::slice::from_ref(&bar)).unwrap().generation.paths[0].clone();
    assert!(ready.exists());
    // The disk is full; the one that is here already stays, since it is wanted.
    let offers = [&bar, &foo].map(|wheel| offer(&wheel.file_name(), &wheel.build()));
    let failed = worker.sync_offers(&offers, |_, _| {
        assert!(!old.exists() && ready.exists());
        Err("No space left on device".into())
    });
    assert!(failed.is_err());
    assert_eq!(worker.names().len(), 1);
}

#[test]
fn a_wheel_that_is_in_several_generations_is_one_open_file() {
    let mut worker = WheelSync::new();
    let folders = worker.folders();
    let wheels: Vec<_> = (0..5).map(|n| WheelFile::new(&format!("p{n}"), "1")).collect();
    let first = worker.sync_in(&folders, &wheels).unwrap().generation;
    let open = || {
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter(|entry| {
                let target = fs::read_link(entry.as_ref().unwrap().path());
                target.is_ok_and(|target| target.starts_with(folders.path()))
            })
            .count()
    };
    assert_eq!(open(), 5);
    let second = worker.sync_in(&folders, &wheels[1..]).unwrap().generation;
    assert_eq!(open(), 5);
    drop(first);
    assert_eq!((open(), folders.collect().unwrap()), (4, 1));
    // One that was removed by hand, lock and all, is unpacked anew.
    let gone = second.paths[0].clone();
    make_writable(&gone);
    fs::remove_dir_all(&gone).unwrap();
    fs::remove_file(gone.with_extension("lock")).unwrap();
    assert!(!second.is_there());
    let third = worker.sync_in(&folders, &wheels[1..]).unwrap().generation;
    assert!(third.is_there() && third.set == second.set && !second.is_there());
}

#[test]
fn folders_that_come_and_go_do_not_disturb_whoever_looks_for_old_ones() {
    let worker = WheelSync::new();
    let (folders, other) = (worker.folders(), worker.folders());
    std::thread::scope(|scope| {
        let (stop, stopped) = pyoco_server::thread::stop_channel();
        let folders = &folders;
        scope.spawn(move || {
            while !pyoco_server::thread::is_stopped(&stopped) {
                folders.collect().unwrap();
            }
        });
        for _ in 0..3000 {
            drop(other.scratch().unwrap());
        }
        drop(stop);
    });
}

#[test]
fn what_a_worker_has_remembered_long_ago_is_forgotten() {
    let mut worker = WheelSync::new();
    worker.sync(&[wheel("1.0")]).unwrap().generation.remember(&worker.folders()).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(30 * 24 * 3600);
    for entry in fs::read_dir(worker.root()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with(".installed-") {
            File::options().append(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        }
    }
    // Its own is renewed by a worker that lives.
    worker.tags = vec!["gpu".to_owned()];
    assert_eq!(worker.folders().collect().unwrap(), 1);
    assert!(worker.names().is_empty());
}

#[test]
fn what_cannot_be_read_is_nothing_to_go_on_with() {
    let mut worker = WheelSync::new();
    worker.sync(&[wheel("1.0")]).unwrap().generation.remember(&worker.folders()).unwrap();
    for text in ["", "{", "[]", r#"{"wheels": [{"sha256": "../../etc"}]}"#] {
        for entry in fs::read_dir(worker.root()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                fs::write(path, text).unwrap();
            }
        }
        let last = Generation::last(&worker.folders(), &worker.patience()).unwrap();
        assert!(last.is_none_or(|last| last.paths.is_empty()), "{text}");
    }
}

#[test]
fn workers_that_unpack_the_same_wheel_at_once_share_its_folder() {
    let worker = WheelSync::new();
    let many = (0..50).fold(wheel("1.0"), |wheel, n| wheel.file(&format!("foo/m{n}.py"), "A = 1\n"));
    let (name, bytes) = (many.file_name(), many.build());
    let workers = 4;
    let barrier = Barrier::new(workers);
    let root = worker.root();
    let paths: Vec<_> = std::thread::scope(|scope| {
        let start = || {
            let (barrier, name, bytes, root) = (&barrier, &name, &bytes, &root);
            scope.spawn(move || {
                let mut other = WheelSync::in_folder(root);
                let generation = other
                    .sync_offers(&[offer(name, bytes)], |_, to| {
                        // All of them are past the look whether it is there.
                        barrier.wait();
                        fs::write(to, bytes).map_err(|e| e.to_string())
                    })
                    .unwrap()
                    .generation;
                other.folders().collect().unwrap();
                assert_eq!(other.python(&generation.paths, "import foo.m49; print(foo.V)"), "1.0");
                generation
            })
        };
        let threads: Vec<_> = (0..workers).map(|_| start()).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(paths.iter().all(|generation| generation.paths == paths[0].paths));
    assert_eq!(worker.names().len(), 1, "{:?}", worker.names());
    drop(paths);
    assert_eq!(worker.folders().collect().unwrap(), 1);
}

#[test]
fn what_a_killed_worker_has_left_is_removed_and_nothing_else() {
    let mut worker = WheelSync::new();
    let generation = worker.sync(&[wheel("1.0")]).unwrap().generation;
    let root = worker.root();
    // As it is after a kill between any two steps of unpacking.
    for name in [".tmp-a/folder/foo", ".tmp-b", "mine", "d41d8"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::write(root.join(".tmp-a/wheel"), "PK").unwrap();
    for name in [".tmp-a.lock", ".tmp-c.lock", "foo-1.0-py3-none-any.whl", "mine.lock"] {
        fs::write(root.join(name), "").unwrap();
    }
    // A lock alone may be one that somebody is about to take.
    fs::write(root.join(".tmp-d.lock"), "").unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    File::options().append(true).open(root.join(".tmp-c.lock")).unwrap().set_modified(long_ago).unwrap();
    let spare = root.join(format!("{}.lock", "0".repeat(64)));
    fs::write(&spare, "").unwrap();
    // One that is at work now.
    let folders = worker.folders();
    let scratch = folders.scratch().unwrap();
    fs::write(scratch.path().join("wheel"), "PK").unwrap();
    assert_eq!(worker.folders().collect().unwrap(), 2);
    assert!(scratch.path().join("wheel").is_file());
    assert!(!spare.exists() && !root.join(".tmp-c.lock").exists());
    drop(scratch);
    let used = generation.paths[0].file_name().unwrap().to_str().unwrap().to_owned();
    let mut left = vec![used, "mine".into(), "d41d8".into(), "foo-1.0-py3-none-any.whl".into()];
    left.sort();
    assert_eq!(worker.names(), left);
    assert!(root.join("mine.lock").exists() && root.join(".tmp-d.lock").exists());
}

#[test]
fn what_fails_otherwise_changes_nothing_and_may_be_tried_again() {
    let mut worker = WheelSync::new();
    let (name, bytes) = (wheel("1.0").file_name(), wheel("1.0").build());
    let fault = |result: Result<_, Error>| match result.map(|_: pyoco_server::worker::wheels::Prepared| ()) {
        Err(Error::Wheel { wheel, fault }) => {
            assert_eq!(wheel, "foo-1.0-py3-none-any.whl");
            fault
        }
        other => panic!("{other:?}"),
    };
    let offers = [offer(&name, &bytes)];
    let gone = worker.sync_offers(&offers, |_, _| Err("the registry is away".into()));
    assert!(matches!(fault(gone), Fault::Fetch(why) if why == "the registry is away"));
    let other = worker.sync_offers(&offers, |_, to| fs::write(to, "x").map_err(|e| e.to_string()));
    assert!(matches!(fault(other), Fault::Hash { .. }));
    let never = worker.sync_offers(&offers, |_, _| Ok(()));
    assert!(matches!(fault(never), Fault::Disk { .. }));
    worker.timeout = Duration::ZERO;
    assert!(worker.names().is_empty(), "{:?}", worker.names());
    let late = worker.sync_files(&[(name.clone(), bytes.clone())]);
    assert!(matches!(fault(late), Fault::Over(Impatience::Late(0))));
    worker.timeout = Duration::from_secs(60);
    worker.stop();
    let stopped = worker.sync_files(&[(name.clone(), bytes.clone())]);
    assert!(matches!(fault(stopped), Fault::Over(Impatience::Stopped)));
    worker.restart();
    // Whoever stops does not take the time to clean up.
    worker.folders().collect().unwrap();
    assert!(worker.names().is_empty(), "{:?}", worker.names());
    assert_eq!(worker.sync_files(&[(name, bytes)]).unwrap().generation.paths.len(), 1);
}

#[test]
fn nothing_is_compiled_to_another_place() {
    let mut worker = WheelSync::new();
    let elsewhere = worker.folder.path().join("elsewhere");
    worker.python.environment.push(("PYTHONPYCACHEPREFIX".into(), elsewhere.clone().into()));
    let (path, _generation) = worker.unpacked(&wheel("1.0"));
    assert!(!elsewhere.exists() && path.join("foo/__init__.py").exists());
}

#[test]
fn a_wheel_whose_modules_take_too_long_to_compile_is_a_wheel() {
    let mut worker = WheelSync::new();
    let sleeper = worker.folder.path().join("python");
    fs::write(&sleeper, "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(&sleeper, Permissions::from_mode(0o755)).unwrap();
    let real = std::mem::replace(&mut worker.python.program, sleeper.to_str().unwrap().to_owned());
    worker.timeout = Duration::from_secs(2);
    let started = Instant::now();
    let generation = worker.sync(&[wheel("1.0")]).unwrap().generation;
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(!generation.paths[0].join("foo/__pycache__").exists());
    worker.python.program = real;
    assert_eq!(worker.python(&generation.paths, "import foo; print(foo.V)"), "1.0");
}

#[test]
fn an_offer_without_a_hash_is_no_path() {
    let mut worker = WheelSync::new();
    let odd = Offer { sha256: "../../x".into(), ..offer("foo-1.0-py3-none-any.whl", b"") };
    let prepared = worker.sync_offers(&[odd], |_, _| panic!("it was fetched")).unwrap();
    assert_eq!(prepared.selection.skipped.len(), 1);
}

#[test]
fn wheels_that_come_and_go_among_workers_are_whole_whenever_they_are_held() {
    let worker = WheelSync::new();
    let files: Vec<_> =
        ["1.0", "1.1"].map(|v| (wheel(v).file_name(), wheel(v).build())).into_iter().collect();
    std::thread::scope(|scope| {
        for n in 0..3 {
            let (root, file) = (worker.root(), &files[n % 2]);
            scope.spawn(move || {
                let mut other = WheelSync::in_folder(&root);
                for _ in 0..15 {
                    let held = other.sync_files(std::slice::from_ref(file)).unwrap().generation;
                    let path = &held.paths[0];
                    for name in ["foo/__init__.py", "foo/__pycache__", "foo-1.0.dist-info/RECORD"] {
                        let name = name.replace("1.0", &held.installed[0].package_version);
                        assert!(path.join(&name).exists(), "{name} is gone while it is held");
                    }
                    drop(held);
                    other.folders().collect().unwrap();
                }
            });
        }
    });
    worker.folders().collect().unwrap();
    assert!(worker.names().is_empty(), "{:?}", worker.names());
}
