//! `multipart/form-data` bodies with a known length: the gateway takes no chunked requests.

/// What stands around a file of a form, so that the file itself can be sent as it is read.
pub struct Frame {
    pub content_type: String,
    /// Before the file: the plain fields and the head of its part.
    pub head: Vec<u8>,
    /// What closes the form.
    pub tail: Vec<u8>,
}

/// What stands around a file of the field `name`. The plain fields, names and values, come first, so
/// that the server knows them before it reads the file; the boundary is random, so that no content holds it.
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

    /// Holds the form that is sent against `expected`, where `@` stands for its boundary.
    fn sent(fields: &[(&str, &str)], name: &str, file_name: &str, expected: &str) {
        let frame = around_file(fields, name, file_name);
        let (_, boundary) = frame.content_type.split_once("boundary=").unwrap();
        let text = String::from_utf8([&frame.head[..], b"z", &frame.tail[..]].concat()).unwrap();
        assert_eq!(text, expected.replace('@', boundary));
    }

    #[test]
    fn a_file_name_cannot_add_a_header() {
        sent(
            &[("flow_name", "main")],
            "workflow",
            "a\"\r\nX: y",
            "--@\r\nContent-Disposition: form-data; name=\"flow_name\"\r\n\r\nmain\r\n\
             --@\r\nContent-Disposition: form-data; name=\"workflow\"; \
             filename=\"a%22%0D%0AX: y\"\r\nContent-Type: application/octet-stream\r\n\r\nz\r\n\
             --@--\r\n",
        );
    }

    #[test]
    fn a_frame_and_its_file_are_a_form() {
        sent(
            &[("replace", "true"), ("tags", "a,b")],
            "wheel",
            "a.whl",
            "--@\r\nContent-Disposition: form-data; name=\"replace\"\r\n\r\ntrue\r\n\
             --@\r\nContent-Disposition: form-data; name=\"tags\"\r\n\r\na,b\r\n\
             --@\r\nContent-Disposition: form-data; name=\"wheel\"; \
             filename=\"a.whl\"\r\nContent-Type: application/octet-stream\r\n\r\nz\r\n\
             --@--\r\n",
        );
    }
}
