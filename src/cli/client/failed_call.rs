//! The message for a failed call: a number, the answer of the server, and the way out.

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::client::Error;
use crate::model::error::Code;

/// A failed call as the user sees it.
pub fn failure_of(error: Error) -> Failure {
    let (id, title) = match &error {
        Error::Unreachable { .. } => (Code::GatewayUnreachable.err_id(), "cannot reach the gateway"),
        Error::BadServer { .. } | Error::BadApiKey { .. } | Error::BadFile { .. } => {
            (Code::BadCommandLine.err_id(), "cannot use the command line")
        }
        _ => ("ERR-PYOCO-HTTP".to_owned(), "the request failed"),
    };
    let hint = match &error {
        Error::Unreachable { .. } => Code::GatewayUnreachable.hint().to_owned(),
        Error::BadFile { .. } => "check the path and its permissions".to_owned(),
        Error::OtherHash { name, .. } => format!(
            "delete it with `pyoco-client wheel-delete --name {name}` before a worker gets it, and \
             upload it again"
        ),
        Error::Status { request, status, err_id, hint, .. } => {
            let known = Code::ALL.into_iter().find(|code| Some(code.err_id()) == *err_id);
            let hint = hint
                .clone()
                .or_else(|| known.map(|code| code.hint().to_owned()))
                .unwrap_or_else(|| hint_for(*status, is_about_wheels(request)).to_owned());
            // The number says where to look it up.
            err_id.as_ref().map_or(hint.clone(), |id| format!("{hint} ({id})"))
        }
        Error::TimedOut { request, .. } | Error::Broken { request, .. } => {
            let list = if is_about_wheels(request) { "wheels" } else { "list" };
            format!(
                "the request may have taken effect; look with `pyoco-client {list}`, and at the \
                 gateway's log"
            )
        }
        _ => "check that --server names a pyoco gateway".to_owned(),
    };
    Failure { exit: Exit::Failed, id, title, reason: error.to_string(), usage: None, hint }
}

/// Whether a request, method and path, was about wheels.
fn is_about_wheels(request: &str) -> bool {
    let path = request.split_once(' ').map_or("", |(_, path)| path);
    path == "/wheels" || path.starts_with("/wheels/")
}

/// For servers that give no hint themselves.
fn hint_for(status: u16, about_wheels: bool) -> &'static str {
    match status {
        404 if about_wheels => Code::WheelNotFound.hint(),
        409 if about_wheels => Code::WheelConflict.hint(),
        413 if about_wheels => "leave out what workers do not need, or raise PYOCO_WHEEL_MAX_BYTES",
        401 => Code::ApiKeyMissing.hint(),
        403 => Code::ApiKeyInvalid.hint(),
        404 => Code::RunNotFound.hint(),
        503 => Code::NatsUnavailable.hint(),
        400..=499 => "correct the request; --help shows what is possible",
        _ => "see the gateway's log",
    }
}
