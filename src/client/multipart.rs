//! `multipart/form-data` bodies with a known length: the gateway takes no chunked requests.

/// A body and its content type.
pub struct Multipart {
    /// For the header.
    pub content_type: String,
    /// All parts.
    pub body: Vec<u8>,
}

/// One part.
pub enum Part<'a> {
    /// A plain field.
    Text(&'a str, &'a str),
    /// A file: field, file name, content.
    File(&'a str, &'a str, &'a [u8]),
}

/// Puts the parts together; the boundary is random, so that no content can hold it.
pub fn encode(parts: &[Part<'_>]) -> Multipart {
    let boundary = format!("pyoco-{}", uuid::Uuid::new_v4().simple());
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(
            format!("--{boundary}\r\nContent-Disposition: form-data; ").as_bytes(),
        );
        match part {
            Part::Text(name, value) => {
                body.extend_from_slice(format!("name=\"{}\"\r\n\r\n", quoted(name)).as_bytes());
                body.extend_from_slice(value.as_bytes());
            }
            Part::File(name, file_name, content) => {
                let head = format!(
                    "name=\"{}\"; filename=\"{}\"\r\nContent-Type: application/octet-stream\r\n\r\n",
                    quoted(name),
                    quoted(file_name)
                );
                body.extend_from_slice(head.as_bytes());
                body.extend_from_slice(content);
            }
        }
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Multipart { content_type: format!("multipart/form-data; boundary={boundary}"), body }
}

/// As browsers escape names: what could end the header is percent-encoded.
fn quoted(text: &str) -> String {
    text.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_add_a_header() {
        let parts = [Part::Text("flow_name", "main"), Part::File("workflow", "a\"\r\nX: y", b"z")];
        let form = encode(&parts);
        let text = String::from_utf8(form.body).unwrap();
        let (_, boundary) = form.content_type.split_once("boundary=").unwrap();
        let expected = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"flow_name\"\r\n\r\nmain\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"workflow\"; \
             filename=\"a%22%0D%0AX: y\"\r\nContent-Type: application/octet-stream\r\n\r\nz\r\n\
             --{boundary}--\r\n"
        );
        assert_eq!(text, expected);
    }
}
