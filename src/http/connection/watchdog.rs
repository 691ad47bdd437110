//! Ends what cannot end by itself: requests whose handler does not answer, streams whose client has gone.
//!
//! The thread of such a connection is inside a handler, and cannot look at its client.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{select, tick};

use super::last_answer;
use super::socket::{Phase, Socket};
use crate::http::Shared;
use crate::http::application::Application;
use crate::http::error::{self, ErrorReply};
use crate::thread::StopSignal;

/// Longest and shortest time between two looks at all connections.
const LOOKS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(20));

/// Looks at all connections until `stop` is closed.
pub fn watch<S: Application>(shared: &Shared<S>, stop: &StopSignal) {
    let deadline = shared.settings.answer_deadline;
    let look = tick((deadline / 4).clamp(LOOKS.1, LOOKS.0));
    loop {
        select! {
            recv(stop) -> _ => return,
            recv(look) -> _ => {}
        }
        let sockets: Vec<Arc<Socket>> = shared.sockets().values().map(Arc::clone).collect();
        for socket in sockets {
            match socket.phase().0 {
                Phase::Handling => give_up(shared, &socket, deadline),
                Phase::Streaming if socket.is_hung_up() => {
                    // The next write of the stream fails.
                    socket.close_from(Phase::Streaming);
                }
                _ => {}
            }
        }
    }
}

/// Answers 504 if a handler has had its request for `deadline`. The handler keeps its permit and its thread
/// until it returns; its answer is dropped then.
fn give_up<S: Application>(shared: &Shared<S>, socket: &Socket, deadline: Duration) {
    let Some(request) = socket.give_up(deadline) else { return };
    log::warn!(request_id = &*request.request_id; "a handler has not answered in time");
    shared.application.refused(error::UNANSWERED.status);
    let refusal = ErrorReply::from(&error::UNANSWERED);
    socket.send_last(&last_answer(refusal, &request.request_id, request.is_head));
}
