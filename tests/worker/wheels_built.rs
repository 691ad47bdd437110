//! The wheels that the tests build are wheels: pip takes them, and Python imports them.

use std::process::Command;

use crate::support::python::V08;
use crate::support::wheel::WheelFile;

#[test]
fn pip_takes_a_wheel_of_the_tests_and_python_imports_it() {
    let folder = tempfile::tempdir().unwrap();
    let wheel = WheelFile::new("foo", "1.2")
        .file("foo/__init__.py", "WORD = 'hello'\n")
        .entry_points("[pyoco.tasks]\nhello = foo:WORD\n")
        .tag("py2.py3-none-any")
        .description("What it is for.");
    let path = wheel.write_to(folder.path());
    let target = folder.path().join("target");
    let pip = Command::new(V08.path())
        .args(["-I", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target"])
        .args([&target, &path])
        .output()
        .unwrap();
    assert!(pip.status.success(), "{}", String::from_utf8_lossy(&pip.stderr));
    let script = "import importlib.metadata as m, sys; sys.path.insert(0, sys.argv[1]); import foo; \
        print(foo.WORD, m.version('foo'), [e.name for e in m.entry_points(group='pyoco.tasks')])";
    let python = Command::new(V08.path()).args(["-I", "-c", script]).arg(&target).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&python.stdout), "hello 1.2 ['hello']\n");
}
