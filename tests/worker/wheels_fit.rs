//! What an interpreter says of the wheels that fit it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use pyoco_server::model::wheel::WheelName;
use pyoco_server::thread;
use pyoco_server::worker::wheels::{Error, Interpreter, Patience, Python};

use crate::support::wait::{PATIENCE, eventually};
use crate::support::wheel_sync::WheelSync;

#[test]
fn what_is_computed_without_a_library_is_what_the_library_says() {
    let worker = WheelSync::new();
    let own =
        Interpreter::ask_without_library(&worker.python, worker.folder.path(), &worker.patience()).unwrap();
    assert_eq!(own.version, worker.interpreter.version);
    assert!(own.tags().len() > 100, "{:?}", own.tags());
    // Where versions of the library disagree: the place of tags without any C library, and modules for
    // one interpreter on any platform.
    let agreed = |python: &Interpreter| -> Vec<String> {
        let is_agreed =
            |tag: &&String| !(tag.contains("-linux_") || tag.starts_with("cp") && tag.ends_with("-any"));
        python.tags().iter().filter(is_agreed).cloned().collect()
    };
    let pairs = agreed(&own).into_iter().zip(agreed(&worker.interpreter));
    let first_difference = pairs.enumerate().find(|(_, (own, library))| own != library);
    assert_eq!(first_difference, None);
    let set = |python: &Interpreter| python.tags().iter().cloned().collect::<BTreeSet<_>>();
    let differences: Vec<_> = set(&own).symmetric_difference(&set(&worker.interpreter)).cloned().collect();
    assert!(differences.iter().all(|tag| tag.ends_with("-none-any")), "{differences:?}");
    assert!(differences.len() <= 1, "{differences:?}");
}

#[test]
fn wheels_for_others_do_not_fit() {
    let worker = WheelSync::new();
    let fits = |tag: &str| {
        let name = WheelName::parse(&format!("a-1-{tag}.whl")).unwrap();
        worker.interpreter.rank(&name).is_some()
    };
    for tag in ["py3-none-any", "py2.py3-none-any", "cp32-abi3-manylinux1_x86_64.linux_aarch64.any"] {
        let expected = !tag.starts_with("cp") || cfg!(target_arch = "x86_64");
        assert_eq!(fits(tag), expected, "{tag}");
    }
    for tag in ["cp39-cp39-win_amd64", "py2-none-any", "py4-none-any", "cp311-cp311-macosx_11_0_arm64"] {
        assert!(!fits(tag), "{tag}");
    }
}

#[test]
fn an_interpreter_that_does_not_answer_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (_stop, signal) = thread::stop_channel();
    let reason = |program: &Path, patience: Duration| {
        let environment = vec![("ONLY".into(), "this".into())];
        let python = Python { program: program.to_str().unwrap().to_owned(), environment };
        match Interpreter::ask(&python, folder.path(), &Patience::new(patience, &signal)) {
            Err(Error::Interpreter { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let script = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let long = Duration::from_secs(30);
    assert!(reason(Path::new("/no/python"), long).contains("cannot be started"));
    let failing = script("failing", "echo no encodings >&2; exit 3");
    assert!(reason(&failing, long).contains("exit status: 3: no encodings"));
    assert!(reason(&script("odd", "echo hello"), long).contains("cannot be read"));
    let seen = reason(&script("telling", "/usr/bin/env >&2; exit 1"), long);
    assert!(seen.contains("ONLY=this") && !seen.contains("CARGO"), "{seen}");
    // Far more than a pipe holds, and never an end.
    let started = Instant::now();
    let slow = script("slow", "exec /usr/bin/yes");
    assert!(reason(&slow, Duration::from_millis(300)).contains("was not done within"));
    assert!(started.elapsed() < Duration::from_secs(5));
    // What a wrapper has started ends with it.
    let noted = folder.path().join("pid");
    let wrapper = format!("/bin/sleep 600 &\necho $! >{}\nwait", noted.display());
    let wrapper = script("wrapper", &wrapper);
    assert!(reason(&wrapper, Duration::from_millis(500)).contains("was not done within"));
    let pid = fs::read_to_string(&noted).unwrap();
    eventually(PATIENCE, "the end of what the wrapper has started", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
    });
}

#[test]
fn an_interpreter_may_greet_whoever_starts_it() {
    let mut worker = WheelSync::new();
    let greeting = "print('welcome to {this} machine')\n";
    fs::write(worker.folder.path().join("sitecustomize.py"), greeting).unwrap();
    worker.python.environment.retain(|(name, _)| name != "PYTHONPATH");
    worker.python.environment.push(("PYTHONPATH".into(), worker.folder.path().into()));
    let again = Interpreter::ask(&worker.python, Path::new("/"), &worker.patience()).unwrap();
    assert_eq!(again, worker.interpreter);
}

#[test]
fn nothing_of_the_folder_where_it_is_asked_is_imported() {
    let worker = WheelSync::new();
    for name in ["packaging", "json", "sysconfig", "struct", "compileall"] {
        fs::write(worker.folder.path().join(format!("{name}.py")), "raise SystemExit('caught')").unwrap();
    }
    let again = Interpreter::ask(&worker.python, worker.folder.path(), &worker.patience()).unwrap();
    assert_eq!(again, worker.interpreter);
}
