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
    let boundary = format!("pyoco-{}", uuid::Uuid::new_v4().simple());
    let disposition =
        |name: &str| format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"", quoted(name));
    let mut head = String::new();
    for (name, value) in fields {
        head += &format!("{}\r\n\r\n{value}\r\n", disposition(name));
    }
    head += &format!(
        "{}; filename=\"{}\"\r\nContent-Type: application/octet-stream\r\n\r\n",
        disposition(name),
        quoted(file_name)
    );
    Frame {
        content_type: format!("multipart/form-data; boundary={boundary}"),
        head: head.into_bytes(),
        tail: format!("\r\n--{boundary}--\r\n").into_bytes(),
    }
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
