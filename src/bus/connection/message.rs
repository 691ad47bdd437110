//! A message as it came from the server, and what a JetStream reply subject tells of it.

#[derive(Debug, Clone)]
pub struct Message {
    pub subject: String,
    pub reply: Option<String>,
    pub data: Vec<u8>,
    headers: Option<nats::HeaderMap>,
}

impl Message {
    pub(crate) fn new(message: nats::Message) -> Self {
        let mut message = message;
        Message {
            subject: std::mem::take(&mut message.subject),
            reply: message.reply.take(),
            data: std::mem::take(&mut message.data),
            headers: message.headers.take(),
        }
    }

    /// What stands for a message that left its stream without another one in its place.
    pub(crate) fn purged(subject: String) -> Self {
        let headers = Some([("KV-Operation", "PURGE")].into_iter().collect());
        Message { subject, reply: None, data: Vec::new(), headers }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.as_ref()?.get(name).map(String::as_str)
    }

    pub fn status(&self) -> Option<u16> {
        self.header("Status")?.parse().ok()
    }

    pub fn is_no_responders(&self) -> bool {
        self.data.is_empty() && self.status() == Some(503)
    }

    /// `<stream>.<consumer>` that delivered it.
    pub(crate) fn consumer(&self) -> Option<String> {
        let tokens: Vec<&str> = self.reply.as_deref()?.strip_prefix("$JS.ACK.")?.split('.').collect();
        let names = if tokens.len() == 7 { &tokens[..2] } else { tokens.get(2..4)? };
        Some(names.join("."))
    }

    /// The delivery that it belongs to; only such a message is a stored one.
    pub fn meta(&self) -> Option<Meta> {
        Meta::parse(self.reply.as_deref()?)
    }
}

/// What `$JS.ACK.…` says of a delivered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub num_delivered: u64,
    pub stream_seq: u64,
    /// Its sequence among the consumer's deliveries.
    pub consumer_seq: u64,
    /// When it was stored, by the server's clock, in unix nanoseconds.
    pub stored_at: u64,
    pub pending: u64,
}

impl Meta {
    /// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<time>.<pending>`, and the longer form
    /// with domain and account hash in front and a token behind.
    pub fn parse(reply: &str) -> Option<Meta> {
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let numbers = match tokens.len() {
            7 => &tokens[2..7],
            9.. => &tokens[4..9],
            _ => return None,
        };
        let number = |at: usize| numbers[at].parse::<u64>().ok();
        Some(Meta {
            num_delivered: number(0)?,
            stream_seq: number(1)?,
            consumer_seq: number(2)?,
            stored_at: number(3)?,
            pending: number(4)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_ack_subject_are_read() {
        let stored_at = 1_700_000_000_000_000_000;
        let expected = Meta { num_delivered: 2, stream_seq: 30, consumer_seq: 4, stored_at, pending: 5 };
        let short = "$JS.ACK.PYOCO_WORK.pyoco_workers_default.2.30.4.1700000000000000000.5";
        let long = "$JS.ACK._.acc.PYOCO_WORK.pyoco_workers_default.2.30.4.1700000000000000000.5.tok";
        assert_eq!(Meta::parse(short), Some(expected));
        assert_eq!(Meta::parse(long), Some(expected));
        for bad in ["", "$JS.ACK.a.b.c", "$JS.ACK.s.c.x.1.1.1.1", "_INBOX.x.1"] {
            assert_eq!(Meta::parse(bad), None, "{bad}");
        }
    }
}
