//! The METADATA file of a wheel: headers as in a mail, then a description.

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Names and values in order; a folded value is one line.
    headers: Vec<(String, String)>,
    body: String,
}

impl Metadata {
    /// Reads the text; lines that are no header are passed over, as Python's own reader does.
    pub fn parse(text: &str) -> Metadata {
        let mut headers: Vec<(String, String)> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            rest = after;
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.is_empty() {
                break;
            }
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = headers.last_mut() {
                    value.push('\n');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        }
        Metadata { headers, body: rest.trim().to_owned() }
    }

    /// The first value of a header, in any case; `None` when it is missing or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(n, value)| n.eq_ignore_ascii_case(name) && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let headers = self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name));
        headers.map(|(_, value)| value.as_str())
    }

    /// The description: what follows the headers, or the header of that name in older files.
    pub fn description(&self) -> &str {
        if self.body.is_empty() { self.get("Description").unwrap_or_default() } else { &self.body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_description_are_told_apart() {
        let text = "Metadata-Version: 2.1\r\nName: Foo\r\nProject-URL: Docs, https://x\r\n\
            project-url: Home, https://y\r\nLicense: one\r\n  two\r\nnonsense\r\nSummary:\r\n\r\nLong\r\n\r\ntext: here\r\n";
        let metadata = Metadata::parse(text);
        assert_eq!(metadata.get("name"), Some("Foo"));
        assert_eq!(metadata.all("Project-URL").count(), 2);
        assert_eq!((metadata.get("License"), metadata.get("Summary")), (Some("one\ntwo"), None));
        assert_eq!(metadata.description(), "Long\r\n\r\ntext: here");
        assert_eq!(Metadata::parse("Name: a\nDescription: old").description(), "old");
        assert_eq!(Metadata::parse(""), Metadata::default());
    }
}
