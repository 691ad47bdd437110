//! What the gateway answers for `/` and `/static/…`.

use crate::browser::{english, folder};
use crate::support::cluster::Cluster;
use crate::support::http::Response;

#[test]
fn page_and_files_come_with_their_headers() {
    let cluster = english().start();
    let page = cluster.get("/");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    check(&page);
    let text = page.text();
    assert!(!text.contains('{'), "a place was not filled: {text}");
    for word in ["<style", "style=", "onclick", "javascript:", "http://", "https://"] {
        assert!(!text.contains(word), "{word} in {text}");
    }
    let mut names: Vec<&str> = text.split("\"/static/").skip(1).collect();
    names.iter_mut().for_each(|name| *name = name.split('"').next().unwrap());
    assert!(names.contains(&"main.js") && names.contains(&"icon.svg"), "{names:?}");
    for name in names {
        let file = cluster.get(&format!("/static/{name}"));
        check(&file);
        let kind = match name.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(file.header("content-type"), Some(kind), "{name}");
    }
}

fn check(answer: &Response) {
    assert_eq!(answer.status, 200);
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
}

#[test]
fn what_the_browser_has_is_not_sent_again() {
    let cluster = english().start();
    for path in ["/", "/static/main.js"] {
        let first = cluster.get(path);
        let etag = first.header("etag").unwrap().to_owned();
        let ask = |known: &str| cluster.request("GET", path, &[("If-None-Match", known)], b"");
        for known in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}")] {
            let again = ask(&known);
            assert_eq!((again.status, again.body.len()), (304, 0), "{known}");
            assert_eq!(again.header("etag"), Some(etag.as_str()));
        }
        assert_eq!(ask("\"x\"").status, 200);
    }
    let etag = |path| cluster.get(path).header("etag").unwrap().to_owned();
    assert_ne!(etag("/?lang=en"), etag("/?lang=ja"));
}

#[test]
fn only_what_is_there_is_served() {
    let cluster = english().start();
    for path in ["/static/nothing.js", "/static/", "/static", "/static/..%2Fmod.rs", "/static/index.html"] {
        let answer = cluster.get(path);
        assert_eq!((answer.status, answer.json()["detail"].as_str()), (404, Some("Not Found")));
    }
    let posted = cluster.post_nothing("/");
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn the_language_is_the_one_asked_for_or_the_one_that_is_set() {
    let lang = |cluster: &Cluster, path: &str| {
        let page = cluster.get(path).text();
        page.split("<html lang=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let auto: [(&str, &str); 3] = [("LC_ALL", "ja_JP.UTF-8"), ("LANG", "de_DE.UTF-8"), ("LANG", "C")];
    for ((name, locale), expected) in auto.into_iter().zip(["ja", "en", "en"]) {
        let locale = [("LC_ALL", ""), ("LC_MESSAGES", ""), ("LANG", ""), (name, locale)];
        assert_eq!(lang(&Cluster::new().gateway().envs(&locale).start(), "/"), expected, "{locale:?}");
    }
    let japanese = Cluster::new().gateway().envs(&[("PYOCO_DASHBOARD_LANG", "ja"), ("LANG", "C")]).start();
    assert_eq!(lang(&japanese, "/"), "ja");
    assert_eq!(lang(&japanese, "/?lang=en"), "en");
    assert_eq!(lang(&japanese, "/?lang=fr"), "ja");
    let flag_first = [("PYOCO_DASHBOARD_LANG", "ja")];
    assert_eq!(
        lang(&Cluster::new().gateway().flags(&["--dashboard-lang", "en"]).envs(&flag_first).start(), "/"),
        "en"
    );
}

/// A page made of files that are too long, or that reads text as HTML, is not what we promise.
#[test]
fn files_keep_the_house_rules() {
    let assets = folder().join("../../src/gateway/page/assets");
    let mut seen = 0;
    for entry in std::fs::read_dir(assets).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() < 500, "{} is too long; split it", path.display());
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
        let is_script = path.extension().is_some_and(|extension| extension == "js");
        assert!(!is_script || text.starts_with("// "), "{} says not what it is", path.display());
        seen += 1;
    }
    assert!(seen > 20);
}
