//! `multipart/form-data` bodies with a known length: the gateway takes no chunked requests.

/// A body and its content type.
pub struct Multipart {
    pub content_type: String,
    pub body: Vec<u8>,
}

pub enum Part<'a> {
    /// A plain field: its name and its value.
    Text(&'a str, &'a str),
    /// A file: field, file name, content.
    File(&'a str, &'a str, &'a [u8]),
}

/// What stands around a file of a form, so that the file itself can be sent as it is read.
pub struct Frame {
    pub content_type: String,
    /// Before the file: the plain fields and the head of its part.
    pub head: Vec<u8>,
    /// What closes the form.
    pub tail: Vec<u8>,
}

/// Puts the parts together; the boundary is random, so that no content can hold it.
pub fn encode(parts: &[Part<'_>]) -> Multipart {
    let boundary = boundary();
    let mut body = Vec::new();
    for part in parts {
        match part {
            Part::Text(name, value) => add_text(&mut body, &boundary, name, value),
            Part::File(name, file_name, content) => {
                add_file_head(&mut body, &boundary, name, file_name);
                body.extend_from_slice(content);
                body.extend_from_slice(b"\r\n");
            }
        }
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Multipart { content_type: content_type(&boundary), body }
}

/// What stands around a file of the field `name`. The plain fields, names and values, come first, so
/// that they are known to whoever reads the file.
pub fn around_file(fields: &[(&str, &str)], name: &str, file_name: &str) -> Frame {
    let boundary = boundary();
    let mut head = Vec::new();
    for (name, value) in fields {
        add_text(&mut head, &boundary, name, value);
    }
    add_file_head(&mut head, &boundary, name, file_name);
    let tail = format!("\r\n--{boundary}--\r\n").into_bytes();
    Frame { content_type: content_type(&boundary), head, tail }
}

fn boundary() -> String {
    format!("pyoco-{}", uuid::Uuid::new_v4().simple())
}

fn content_type(boundary: &str) -> String {
    format!("multipart/form-data; boundary={boundary}")
}

fn add_text(body: &mut Vec<u8>, boundary: &str, name: &str, value: &str) {
    let name = quoted(name);
    let part = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
    );
    body.extend_from_slice(part.as_bytes());
}

fn add_file_head(body: &mut Vec<u8>, boundary: &str, name: &str, file_name: &str) {
    let (name, file_name) = (quoted(name), quoted(file_name));
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; \
         filename=\"{file_name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    );
    body.extend_from_slice(head.as_bytes());
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

    #[test]
    fn a_frame_and_its_file_are_the_same_form() {
        let frame = around_file(&[("replace", "true")], "wheel", "a.whl");
        let (_, boundary) = frame.content_type.split_once("boundary=").unwrap();
        let whole = [&frame.head[..], b"bytes", &frame.tail[..]].concat();
        let form = encode(&[Part::Text("replace", "true"), Part::File("wheel", "a.whl", b"bytes")]);
        let (_, other) = form.content_type.split_once("boundary=").unwrap();
        let form = String::from_utf8(form.body).unwrap().replace(other, boundary);
        assert_eq!(String::from_utf8(whole).unwrap(), form);
    }
}
