//! `.env` lines: `KEY=value`, `export KEY=value`, quotes, `#` comments (inline only after a space).

/// Each line's key and value, or what is wrong with the line; blank lines and comments are skipped.
pub(super) fn parse(text: &str) -> impl Iterator<Item = Result<(String, String), String>> + '_ {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        Some(parse_line(line).ok_or_else(|| {
            // The line itself may hold a secret, so the warning has only its number.
            format!(".env line {} is not KEY=value", index + 1)
        }))
    })
}

fn parse_line(line: &str) -> Option<(String, String)> {
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (key, rest) = line.split_once('=')?;
    let key = key.trim();
    let well_formed = !key.is_empty()
        && !key.starts_with(|c: char| c.is_ascii_digit())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    well_formed.then_some(())?;
    Some((key.to_owned(), value(rest.trim_start())?))
}

fn value(rest: &str) -> Option<String> {
    match rest.chars().next() {
        Some('\'') => {
            let end = rest[1..].find('\'')?;
            only_comment_after(&rest[end + 2..]).then(|| rest[1..=end].to_owned())
        }
        Some('"') => {
            let mut text = String::new();
            let mut chars = rest.char_indices().skip(1);
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' => return only_comment_after(&rest[at + 1..]).then_some(text),
                    '\\' => match chars.next()?.1 {
                        'n' => text.push('\n'),
                        't' => text.push('\t'),
                        'r' => text.push('\r'),
                        other @ ('"' | '\\' | '$') => text.push(other),
                        other => text.extend(['\\', other]),
                    },
                    _ => text.push(c),
                }
            }
            None
        }
        _ => {
            let comment = rest.find(" #").or_else(|| rest.find("\t#")).unwrap_or(rest.len());
            let bare = if rest.starts_with('#') { "" } else { &rest[..comment] };
            Some(bare.trim_end().to_owned())
        }
    }
}

fn only_comment_after(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.is_empty() || rest.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Option<(String, String)> {
        parse(line).next()?.ok()
    }

    #[test]
    fn every_form_of_the_contract_is_read() {
        for (line, value) in [
            ("K=v", "v"),
            ("export K=v", "v"),
            (" K = v w ", "v w"),
            ("K=a#b", "a#b"),
            ("K=a #b", "a"),
            ("K=", ""),
            ("K=#c", ""),
            ("K='a #b' # c", "a #b"),
            (r#"K="a\n\"b\\" "#, "a\n\"b\\"),
            ("K='$x'", "$x"),
            ("K=a=b", "a=b"),
        ] {
            assert_eq!(one(line), Some(("K".to_owned(), value.to_owned())), "{line}");
        }
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_alone() {
        let text = "# c\n\nsecret\nK='open\n2K=v\nK=\"x\" y\nOK=1\n";
        let problems: Vec<_> = parse(text).filter_map(Result::err).collect();
        assert_eq!(problems.len(), 4);
        assert_eq!(problems[0], ".env line 3 is not KEY=value");
        assert!(!problems.concat().contains("secret"));
    }
}
