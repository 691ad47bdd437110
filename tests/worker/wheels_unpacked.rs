//! What becomes of a wheel's files, and every kind of wheel that is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha512};

use crate::support::wheel::{Entry, FILE_MODE, SYMLINK_MODE, WheelFile, archive};
use crate::support::wheel_sync::WheelSync;

fn foo() -> WheelFile {
    WheelFile::new("foo", "1.0").file("foo/__init__.py", "WORD = 'hello'\n")
}

#[test]
fn a_wheel_becomes_a_folder_that_python_imports_from() {
    let mut worker = WheelSync::new();
    let wheel = foo()
        .entry_points("[pyoco.tasks]\nhello = foo:WORD\n")
        .entry(Entry::new("foo/", "").mode(0o040_755))
        .entry(Entry::new("foo/tool", "#!/bin/sh\n").mode(FILE_MODE | 0o111))
        .file("foo/odd name, with \"quotes\".txt", "x")
        .file("foo-1.0.data/purelib/extra/__init__.py", "def fail():\n    raise ValueError\n")
        .file("foo-1.0.data/scripts/run", "#!python\n")
        .file("foo/broken.py", "this is no Python");
    let (path, generation) = worker.unpacked(&wheel);
    let script = "import foo, extra, importlib.metadata as m, traceback\n\
        try: extra.fail()\n\
        except ValueError as e: where = traceback.extract_tb(e.__traceback__)[-1].filename\n\
        print(foo.WORD, m.version('foo'), foo.__spec__.cached, where, sep='|')";
    let said = worker.python(&generation.paths, script);
    let root = path.to_str().unwrap();
    assert!(said.starts_with("hello|1.0|"), "{said}");
    assert!(said.ends_with(&format!("|{root}/extra/__init__.py")), "{said}");
    // What is compiled is used, and says where the source is.
    let cached = said.split('|').nth(2).unwrap();
    assert!(fs::read(cached).unwrap().windows(root.len()).any(|w| w == root.as_bytes()));
    assert!(!path.join("foo-1.0.data").exists() && !path.join("run").exists());
    let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(["", "foo", "foo/__pycache__", "foo/tool"].map(mode), [0o555; 4]);
    assert_eq!(["foo/__init__.py", "foo-1.0.dist-info/RECORD"].map(mode), [0o444; 2]);
    assert_eq!(mode(Path::new(cached).strip_prefix(root).unwrap().to_str().unwrap()), 0o444);
    let set = &generation.set;
    assert_eq!((set.wheels[0].package_name.as_str(), set.generation.len()), ("foo", 16));
    assert_eq!(path.file_name().unwrap().to_str(), Some(set.wheels[0].sha256.as_str()));
}

#[test]
fn record_may_use_any_good_hash_and_leave_sizes_out() {
    use base64::Engine;
    let text = b"A = 1\n";
    let hash = base64::engine::general_purpose::URL_SAFE.encode(Sha512::digest(text));
    let wheel = foo()
        .file("foo/a.py", text)
        .record_row("foo/a.py", &format!("foo/a.py,sha512={hash},"))
        .record_row("foo/", "foo/,,");
    WheelSync::new().unpacked(&wheel);
}

#[test]
fn no_entry_leads_out_of_its_folder_or_is_anything_but_a_file() {
    let mut worker = WheelSync::new();
    for (name, word) in [
        ("../evil.py", "leads elsewhere"),
        ("foo/../../evil.py", "leads elsewhere"),
        ("foo/./evil.py", "leads elsewhere"),
        ("/tmp/evil.py", "absolute"),
        ("foo//evil.py", "empty part"),
        ("..\\evil.py", "backslash"),
        ("C:/evil.py", "drive"),
        ("foo/e\0vil.py", "control"),
        ("foo/e\nvil.py", "control"),
        ("foo-1.0.data/purelib/../../evil.py", "leads elsewhere"),
        ("foo-1.0.data/lib/evil.py", "no wheel has"),
    ] {
        let wheel = foo().unlisted(Entry::new(name, "x = 1\n"));
        let why = worker.refusal(&wheel.file_name(), wheel.build());
        assert!(why.contains(word), "{name:?}: {why}");
    }
    let long = format!("foo/{}", "a".repeat(300));
    for (entry, word) in [
        (Entry::new(long, "x"), "too long"),
        (Entry::new(b"foo/\xff.py", "x"), "UTF-8"),
        (Entry::new("foo/link", "/etc/passwd").mode(SYMLINK_MODE), "neither a file nor a folder"),
        (Entry::new("foo/pipe", "").mode(0o010_644), "neither a file nor a folder"),
        (Entry::new("foo/sub/", "x").mode(0o040_755), "contents of its own"),
        (Entry::new("foo/x", "x").encrypted(), "encrypted"),
        (Entry::new("foo/x", "x").method(12), "deflate"),
        (Entry::new("foo/x", "x").local_name("../../x"), "zip archive"),
    ] {
        let wheel = foo().unlisted(entry);
        let why = worker.refusal(&wheel.file_name(), wheel.build());
        assert!(why.contains(word), "{word}: {why}");
    }
    let left: Vec<_> = fs::read_dir(worker.folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "something was written beside the folder of wheels: {left:?}");
}

#[test]
fn no_two_entries_are_one() {
    let mut worker = WheelSync::new();
    for name in [
        "foo/__init__.py",
        "foo/__INIT__.py",
        "Foo",
        "foo/__init__.py/x",
        "foo-1.0.data/purelib/foo/__init__.py",
    ] {
        let wheel = foo().unlisted(Entry::new(name, "WORD = 'bye'\n"));
        let why = worker.refusal(&wheel.file_name(), wheel.build());
        assert!(why.contains("there twice"), "{name}: {why}");
    }
}

#[test]
fn record_says_what_there_is_and_nothing_else() {
    let mut worker = WheelSync::new();
    let path = "foo/__init__.py";
    for (wheel, word) in [
        (foo().corrupt_record(path), "RECORD says another hash for \"foo/__init__.py\""),
        (foo().record_row(path, "foo/__init__.py,sha256=AAAA,15"), "another hash"),
        (foo().record_row(path, "foo/__init__.py,,15"), "no hash"),
        (foo().record_row(path, "foo/__init__.py,md5=AAAA,15"), "no SHA-256"),
        (foo().record_row(path, "foo/__init__.py,sha256=!,15"), "no SHA-256"),
        (foo().record_row(path, "foo/__init__.py,sha256=AAAA,many"), "the size"),
        (foo().record_row(path, ""), "does not list"),
        (foo().unlisted(Entry::new("foo/more.py", "x")), "does not list \"foo/more.py\""),
        (foo().record_row("gone.py", "gone.py,sha256=AAAA,1"), "which is not there"),
        (foo().record_row("x", "foo/__init__.py,sha256=AAAA,1"), "twice, and differently"),
        (foo().without("RECORD"), "it has no foo-1.0.dist-info/RECORD"),
    ] {
        let why = worker.refusal(&wheel.file_name(), wheel.build());
        assert!(why.contains(word), "{word}: {why}");
    }
    let mut row = foo().build();
    // A byte of a file, after RECORD was written: the archive's own checksum finds it.
    let at = row.windows(5).position(|bytes| bytes == b"foo/_").unwrap() + 16;
    row[at] ^= 1;
    let why = worker.refusal("foo-1.0-py3-none-any.whl", row);
    assert!(why.contains("zip archive"), "{why}");
}

#[test]
fn a_wheel_is_what_its_name_says() {
    let mut worker = WheelSync::new();
    let renamed = |wheel: WheelFile| ("foo-1.0-py3-none-any.whl".to_owned(), wheel.build());
    let named = |wheel: WheelFile| (wheel.file_name(), wheel.build());
    for ((name, bytes), word) in [
        (renamed(WheelFile::new("bar", "1.0")), "another package"),
        (renamed(WheelFile::new("foo", "1.1")), "another package or version"),
        (named(foo().metadata("Name", "bar")), "METADATA says"),
        (named(foo().metadata("Version", "2.0")), "METADATA says"),
        (named(foo().without("METADATA")), "it has no foo-1.0.dist-info/METADATA"),
        (named(foo().without("WHEEL")), "it has no foo-1.0.dist-info/WHEEL"),
        (named(foo().wheel_version("2.0")), "not 1.x"),
        (named(foo().file("bar-1.0.dist-info/METADATA", "")), "two .dist-info folders"),
        (named(foo().file("foo-1.0.data/purelib/x-1.dist-info/y", "")), "two .dist-info folders"),
        (named(foo().metadata("Requires-Python", ">=4")), "it needs Python >=4"),
        (renamed_bytes(b""), "zip archive"),
        (renamed_bytes(b"PK\x05\x06"), "zip archive"),
        (renamed_bytes(&[b'x'; 100_000]), "zip archive"),
        (renamed_bytes(&archive(&[])), "no .dist-info"),
        (renamed_bytes(&foo().build()[..300]), "zip archive"),
    ] {
        let why = worker.refusal(&name, bytes);
        assert!(why.contains(word), "{word}: {why}");
    }
}

fn renamed_bytes(bytes: &[u8]) -> (String, Vec<u8>) {
    ("foo-1.0-py3-none-any.whl".to_owned(), bytes.to_vec())
}

#[test]
fn a_wheel_that_grows_too_much_is_refused_before_it_is_written() {
    let mut worker = WheelSync::new();
    let bomb = foo().file("foo/zeros", vec![0; 80 << 20]);
    let bytes = bomb.build();
    assert!(bytes.len() < 1 << 20, "deflate makes nothing of zeros");
    let why = worker.refusal(&bomb.file_name(), bytes.clone());
    assert!(why.contains("more than 67108864 bytes"), "{why}");
    // The same, with sizes that say nothing of it: what comes out counts.
    let size = (80_u32 << 20).to_le_bytes();
    let mut lying = bytes;
    while let Some(at) = lying.windows(4).position(|bytes| bytes == size) {
        lying[at..at + 4].copy_from_slice(&1000_u32.to_le_bytes());
    }
    let why = worker.refusal(&bomb.file_name(), lying);
    assert!(why.contains("zip archive") || why.contains("another size"), "{why}");
    // A large file in a small wheel is fine within what is free.
    worker.unpacked(&foo().file("foo/zeros", vec![0; 40 << 20]));
}

#[test]
fn an_older_wheel_takes_the_place_of_a_refused_one_which_is_looked_at_once() {
    let mut worker = WheelSync::new();
    let wrong = WheelFile::new("foo", "2.0").file("foo/__init__.py", "").corrupt_record("foo/__init__.py");
    let other = WheelFile::new("bar", "1.0");
    let wheels = [wrong, foo(), other];
    for _ in 0..2 {
        let prepared = worker.sync(&wheels).unwrap();
        let names: Vec<&str> = prepared.generation.installed.iter().map(|w| w.wheel_name.as_str()).collect();
        assert_eq!(names, ["bar-1.0-py3-none-any.whl", "foo-1.0-py3-none-any.whl"]);
        assert_eq!(prepared.selection.skipped[0].wheel_name, "foo-2.0-py3-none-any.whl");
        assert_eq!(worker.fetched, 3, "each wheel is fetched once");
        prepared.generation.remember(&worker.folders()).unwrap();
    }
    // Once it is right, it is taken.
    let right = WheelFile::new("foo", "2.0").file("foo/__init__.py", "");
    let prepared = worker.sync(&[right, foo()]).unwrap();
    assert_eq!(prepared.generation.installed[0].package_version, "2.0");
    assert_eq!(prepared.selection.skipped, []);
}
