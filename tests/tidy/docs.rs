//! Keeps the pages true: links, settings, routes, error numbers, threads and flags against the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use pyoco_server::config::{Config, Source as Settings};
use pyoco_server::gateway::api::route::ROUTES;
use pyoco_server::model::error::Code;

use super::source::{Source, words};
use super::{Breach, report, root, rust_files};

#[test]
fn links_lead_somewhere() {
    let breaches: Vec<Breach> = pages().iter().flat_map(|(path, text)| links(path, text)).collect();
    report(&breaches);
}

#[test]
fn settings_are_documented_with_their_defaults() {
    let page = read("docs/config.md");
    let documented: Vec<(&str, &str)> = page.lines().filter_map(setting).collect();
    let mut breaches = Vec::new();
    let settings = Config::load(&Settings::default()).settings;
    for setting in &settings {
        let shown = match setting.value.as_str() {
            "" => "–".to_owned(),
            value => format!("`{value}`"),
        };
        match documented.iter().find(|(name, _)| *name == setting.name) {
            None => breaches.push(format!("docs/config.md has no line for {}", setting.name)),
            Some((_, default)) if *default != shown => breaches.push(format!(
                "docs/config.md says that {} is {default} by default; it is {shown}",
                setting.name
            )),
            Some(_) => {}
        }
    }
    // Some are read past `Config::load`: where the file is, and what only one program asks for.
    let mut read_somewhere: BTreeSet<String> = settings.iter().map(|s| s.name.to_owned()).collect();
    for (call, folder) in [(".get(", "src/config"), ("var_os(", "src/cli"), ("setting(&", "src/cli")] {
        for path in rust_files(folder) {
            let source = Source::read(&path);
            read_somewhere.extend(variables(&source, call));
        }
    }
    for name in &read_somewhere {
        if !documented.iter().any(|(known, _)| known == name) {
            breaches.push(format!("docs/config.md has no line for {name}, which the code reads"));
        }
    }
    for (name, _) in &documented {
        if !read_somewhere.contains(*name) {
            breaches.push(format!("docs/config.md has a line for {name}, which nothing reads"));
        }
    }
    report(&breaches);
}

#[test]
fn every_route_has_its_section() {
    let page = read("docs/spec.md");
    let sections: BTreeSet<&str> =
        page.lines().filter_map(|line| quoted(line.strip_prefix("### ")?)).collect();
    let routes: BTreeSet<String> =
        ROUTES.iter().map(|route| format!("{} {}", route.method, route.path.replace("{}", "{id}"))).collect();
    let mut breaches = Vec::new();
    for route in &routes {
        if !sections.contains(route.as_str()) {
            breaches.push(format!("docs/spec.md has no section ### `{route}`"));
        }
    }
    for section in sections {
        if !routes.contains(section) {
            breaches.push(format!("docs/spec.md has a section `{section}`, which is no route"));
        }
    }
    report(&breaches);
}

#[test]
fn every_error_number_has_one_line() {
    let page = read("docs/errors.md");
    let numbers: Vec<&str> = page.lines().filter_map(error_number).collect();
    let expected: Vec<String> = Code::ALL.into_iter().map(Code::err_id).collect();
    assert_eq!(numbers, expected, "the numbers of docs/errors.md, in order");
}

#[test]
fn every_thread_is_in_the_ledger() {
    let page = read("docs/architecture.md");
    let ledger = page.split("## Thread ledger").nth(1).unwrap();
    let ledger = ledger.split("### Threads of crates").next().unwrap();
    let listed: BTreeSet<String> = prose(ledger)
        .filter_map(|line| line.strip_prefix("| ").or(line.strip_prefix("- ")))
        .filter_map(|entry| Some(pattern(quoted(entry)?)))
        .collect();
    let mut spawned: BTreeSet<String> = BTreeSet::from(["main".to_owned()]);
    for path in rust_files("src") {
        // The place that starts them gives them the names that it is told.
        if !path.starts_with("src/thread") && path != Path::new("src/thread.rs") {
            spawned.extend(threads(&Source::read(&path)));
        }
    }
    assert!(spawned.len() > 15, "the scan has lost its threads: {spawned:?}");
    let missing: Vec<&String> = spawned.difference(&listed).collect();
    assert!(missing.is_empty(), "not in the ledger of docs/architecture.md: {missing:?}");
    let gone: Vec<&String> = listed.difference(&spawned).collect();
    assert!(gone.is_empty(), "in the ledger of docs/architecture.md, and nobody starts it: {gone:?}");
}

#[test]
fn the_example_on_the_page_is_the_example() {
    let page = read("docs/library_api.md");
    let example = read("examples/embedded_worker.rs");
    assert!(
        page.contains(&format!("```rust\n{example}```")),
        "docs/library_api.md does not quote examples/embedded_worker.rs as it is"
    );
}

#[test]
fn flags_in_commands_exist() {
    let programs = [
        ("pyoco-server", env!("CARGO_BIN_EXE_pyoco-server")),
        ("pyoco-worker", env!("CARGO_BIN_EXE_pyoco-worker")),
        ("pyoco-client", env!("CARGO_BIN_EXE_pyoco-client")),
        ("pyoco-server-admin", env!("CARGO_BIN_EXE_pyoco-server-admin")),
    ];
    let mut breaches = Vec::new();
    let mut seen = 0;
    for (name, binary) in programs {
        let help = all_help(binary);
        for (path, text) in pages() {
            for command in commands(&text, name) {
                seen += 1;
                for flag in flags(&command).filter(|flag| !flags(&help).any(|known| known == *flag)) {
                    breaches.push(format!("{path}: `{command}`: {name} knows no {flag}"));
                }
            }
        }
    }
    assert!(seen > 20, "the scan has lost its commands: {seen}");
    report(&breaches);
}

/// README and everything in docs, as path and text.
pub fn pages() -> Vec<(String, String)> {
    let mut paths = vec!["README.md".to_owned()];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            paths.push(format!("docs/{name}"));
        }
    }
    paths.sort();
    assert!(paths.len() > 5, "the scan has lost its pages: {paths:?}");
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Links to files that are not there, or to headings that the file does not have.
fn links(path: &str, text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for target in targets(text) {
        if target.contains("://") {
            continue;
        }
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let folder = Path::new(path).parent().unwrap();
        let file = if file.is_empty() { path.into() } else { folder.join(file) };
        // Pictures are no text.
        let Ok(linked) = fs::read(root().join(&file)) else {
            breaches.push(format!("{path}: ({target}) leads to no file"));
            continue;
        };
        let linked = String::from_utf8_lossy(&linked);
        if !heading.is_empty() && !has_heading(&linked, heading) {
            breaches.push(format!("{path}: ({target}) leads to no heading"));
        }
    }
    breaches
}

/// Whether one of a page's headings has this anchor.
pub fn has_heading(page: &str, wanted: &str) -> bool {
    prose(page).any(|line| anchor(line).is_some_and(|anchor| anchor == wanted))
}

/// What stands in `](…)`, code left out.
fn targets(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in prose(text) {
        // Odd pieces stand between backticks; a link's text may be code, its target is not.
        for piece in line.split("](").skip(1) {
            found.extend(piece.split_once(')').map(|(target, _)| target));
        }
    }
    found
}

/// The lines outside of fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    })
}

/// The anchor that a heading gets: lower case, words joined by `-`, punctuation dropped.
fn anchor(line: &str) -> Option<String> {
    let text = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept =
        text.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    Some(kept.replace(' ', "-"))
}

/// What stands in the first pair of backticks, when the text begins with one.
fn quoted(text: &str) -> Option<&str> {
    text.trim().strip_prefix('`')?.split('`').next()
}

/// Name and default of ``- `PYOCO_X`, default `1` (count; S W): …``.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("- `")?.split_once("`, default ")?;
    let (default, _) = rest.split_once(" (")?;
    name.starts_with("PYOCO_").then_some((name, default))
}

/// The number of `- **ERR-PYOCO-0001** (client): …`.
fn error_number(line: &str) -> Option<&str> {
    let (number, _) = line.strip_prefix("- **")?.split_once("**")?;
    number.strip_prefix("ERR-PYOCO-")?.parse::<u32>().is_ok().then_some(number)
}

/// The names of variables in the arguments of `call`.
fn variables(source: &Source, call: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in source.product.match_indices(call) {
        let end = source.product[at..].find([';', '{', '\n']).map_or(source.text.len(), |e| at + e);
        let pieces = source.text[at..end].split('"');
        found.extend(pieces.filter(|text| text.starts_with("PYOCO_")).map(str::to_owned));
    }
    found
}

/// The names of the threads that a file starts, with `*` for what is filled in.
fn threads(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let starts = [
        ("thread::", "spawn"),
        ("thread::", "spawn_small"),
        ("Service::", "start"),
        ("Service::", "start_small"),
        ("ThreadSet::", "new"),
    ];
    for (home, function) in starts {
        for at in words(&source.product, function) {
            if !source.product[..at].ends_with(home) {
                continue;
            }
            let argument = source.text[at + function.len()..].trim_start_matches('(').trim_start();
            let name = literal(argument).or_else(|| {
                let variable: String = argument.chars().take_while(|c| c.is_alphanumeric()).collect();
                let given = source.text[..at].rsplit_once(&format!("let {variable} = "))?.1;
                literal(given)
            });
            let name = name.unwrap_or_else(|| {
                panic!("{}:{}: a thread without a name in sight", source.path, source.line_at(at))
            });
            if home == "ThreadSet::" {
                found.push(format!("{name}-reaper"));
            }
            found.push(name);
        }
    }
    found
}

/// `"x"` or `format!("x-{y}"…` at the beginning of `code`.
fn literal(code: &str) -> Option<String> {
    let text = code.strip_prefix("format!(").unwrap_or(code).strip_prefix('"')?;
    Some(pattern(text.split('"').next()?))
}

/// `x-{y}` and `x-<y>` are the same name.
fn pattern(name: &str) -> String {
    match name.split_once(['{', '<']) {
        Some((fixed, _)) => format!("{fixed}*"),
        None => name.to_owned(),
    }
}

/// The help of a program and of its subcommands, one level down and two.
fn all_help(binary: &str) -> String {
    let mut help = String::new();
    let mut open: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(command) = open.pop() {
        let output = Command::new(binary).args(&command).arg("--help").output().unwrap();
        assert!(output.status.success(), "{binary} {command:?} --help");
        let text = String::from_utf8(output.stdout).unwrap();
        let listed = text.split("\nCommands:\n").nth(1).unwrap_or_default();
        for line in listed.lines().take_while(|line| line.starts_with("  ")) {
            let named = line.split_whitespace().next().filter(|_| !line.starts_with("   "));
            open.extend(named.map(|name| [command.as_slice(), &[name.to_owned()]].concat()));
        }
        help.push_str(&text);
    }
    help
}

/// The calls of `program` in a page's code, in blocks and in lines; one may go on after a `\\`.
fn commands(text: &str, program: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let is_call = |piece: &&str| {
        let rest = piece.split_once(program);
        rest.is_some_and(|(before, rest)| {
            let begins = before.split_whitespace().all(|word| word.contains('='))
                || before.ends_with('/') && before.contains("ExecStart=");
            begins && rest.starts_with(' ')
        })
    };
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            found.extend(Some(line.trim()).filter(is_call).map(str::to_owned));
        } else {
            let pieces = line.split('`').skip(1).step_by(2).filter(is_call);
            found.extend(pieces.map(str::to_owned));
        }
    }
    found
}

/// The long flags in a text.
fn flags(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| word.starts_with("--") && word.len() > 2)
}

#[test]
fn a_broken_link_is_found() {
    let good = "[a](docs/spec.md#routes) [`b`](LICENSE) [c](https://nowhere.invalid) `](x)`";
    assert_eq!(links("README.md", good).len(), 1, "a target in code counts, so do not write one");
    let fenced = "```text\n[a](nowhere.md)\n```\n";
    assert!(links("README.md", fenced).is_empty());
    for bad in ["[a](nowhere.md)", "[a](docs/spec.md#nowhere)", "[a](#nowhere)"] {
        assert_eq!(links("README.md", bad).len(), 1, "{bad}");
    }
    assert_eq!(anchor("### What's *new*, in `x.y`?").as_deref(), Some("whats-new-in-xy"));
}

#[test]
fn threads_and_variables_are_found_in_every_spelling() {
    let text = "fn f() { thread::spawn(\"a\", x); thread::spawn_small(format!(\"b-{n}\"), x);\n\
        let c = format!(\"c-{}\", n); thread::spawn(c, x); ThreadSet::new(\"d\", 1, S);\n\
        Service::start(\"f\", x); Service::start_small(\"g\", x); scope.spawn(x); Vec::new(); }\n#[cfg(test)]\nmod tests { fn f() { thread::spawn(\"e\", x); } }";
    let mut found = threads(&Source::new("src/x.rs", text));
    found.sort();
    assert_eq!(found, ["a", "b-*", "c-*", "d", "d-reaper", "f", "g"]);
    let source = Source::new("src/x.rs", "fn f() { let a = env.get(\"PYOCO_A\"); b(\"PYOCO_B\"); }");
    assert_eq!(variables(&source, ".get("), ["PYOCO_A"]);
}

#[test]
fn commands_and_their_flags_are_found() {
    let page = "Use `x --y`, `pyoco-worker --tags a`.\n```sh\nA=b pyoco-worker --run-once \\\n  --x-y=1\n\
        pyoco-workers --z\n```\nExecStart `pyoco-worker`";
    let found = commands(page, "pyoco-worker");
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(flags(&found[1]).collect::<Vec<_>>(), ["--run-once", "--x-y"]);
}

#[test]
fn settings_and_error_numbers_are_found_in_their_lines() {
    let page = "- `PYOCO_A`, default `1` (count; S): a\n- `PYOCO_B`, default – (path; S W): b\n- `C`, x";
    let found: Vec<_> = page.lines().filter_map(setting).collect();
    assert_eq!(found, [("PYOCO_A", "`1`"), ("PYOCO_B", "–")]);
    let page = "- **ERR-PYOCO-0001** (client): a\n- **ERR-PYOCO-HTTP**: b\nERR-PYOCO-0002";
    assert_eq!(page.lines().filter_map(error_number).collect::<Vec<_>>(), ["ERR-PYOCO-0001"]);
}
