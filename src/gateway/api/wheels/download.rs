//! `GET /wheels/{name}`: the bytes of a wheel.

use std::io;

use super::find;
use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::http::Reply;
use crate::model::wheel::CONTENT_TYPE;

/// Streams a wheel out of the store. What its hash does not vouch for breaks off before its end.
pub fn wheel(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let name = cx.param().trim();
    let store = parts.wheels.store.clone();
    let meta = find(&store, name)?;
    let disposition = format!("attachment; filename=\"{}\"", harmless(&meta.name));
    let request_id = cx.request.request_id().to_owned();
    let reply = Reply::download(200, CONTENT_TYPE, meta.size, move |out| {
        // The last piece waits for the verdict on the whole.
        let mut held: Vec<u8> = Vec::new();
        let read = store.read(
            &meta,
            &mut |bytes| {
                out.write_all(&held)?;
                held.clear();
                held.extend_from_slice(bytes);
                Ok(())
            },
            &|| false,
        );
        if let Err(e) = read {
            log::warn!(wheel_name = meta.name.as_str(), request_id = request_id.as_str(),
                error = e.to_string(); "the download of a wheel broke off");
            return Err(io::Error::other(e.to_string()));
        }
        out.write_all(&held)
    });
    Ok(reply.with_header("Content-Disposition", disposition))
}

/// Other programs may have given an object any name; one of ours stays as it is.
fn harmless(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.+!-".contains(c);
    name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        assert_eq!(harmless("a_b-1.0+x!2-py3-none-any.whl"), "a_b-1.0+x!2-py3-none-any.whl");
        assert_eq!(harmless("a\"; b=\\\r\nX: \u{fc}.whl"), "a___b____X___.whl");
    }
}
