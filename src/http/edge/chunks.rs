//! Takes chunked transfer coding apart, byte by byte, without ever waiting for a whole chunk.

/// Longest size line: 16 hex digits hold every `u64`.
const MAX_SIZE_DIGITS: u8 = 16;

/// The state of one chunked body. Only what our own handlers write is understood: no extensions,
/// no trailers; anything else means that the answer was broken off.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

/// The coding is broken: the body must not be taken for complete.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Size {
        size: u64,
        digits: u8,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    LastCr,
    LastLf,
    Done,
}

impl Decoder {
    /// Whether the last chunk has been read to its end.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads `input`, appends the data in it to `out`, and tells how many bytes it has used; that
    /// is all of them unless the body ends before.
    ///
    /// # Errors
    /// [`Broken`] when the input is not chunked coding.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Broken> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if let State::Data { left } = self.state {
                let rest = &input[at..];
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                out.extend_from_slice(&rest[..take]);
                at += take;
                let left = left - take as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                continue;
            }
            self.state = step(self.state, input[at]).ok_or(Broken)?;
            at += 1;
        }
        Ok(at)
    }
}

fn step(state: State, byte: u8) -> Option<State> {
    Some(match (state, byte) {
        (State::Start, _) => State::Size { size: hex(byte)?, digits: 1 },
        (State::Size { size, .. }, b'\r') => State::SizeLf { size },
        (State::Size { size, digits }, _) if digits < MAX_SIZE_DIGITS => {
            State::Size { size: size << 4 | hex(byte)?, digits: digits + 1 }
        }
        (State::SizeLf { size: 0 }, b'\n') => State::LastCr,
        (State::SizeLf { size }, b'\n') => State::Data { left: size },
        (State::DataCr, b'\r') => State::DataLf,
        (State::DataLf, b'\n') => State::Start,
        (State::LastCr, b'\r') => State::LastLf,
        (State::LastLf, b'\n') => State::Done,
        _ => return None,
    })
}

fn hex(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_may_arrive_in_any_pieces() {
        let coded = b"5\r\nhello\r\nB\r\n big world!\r\n0\r\n\r\nrest";
        for piece in 1..coded.len() {
            let mut decoder = Decoder::default();
            let mut out = Vec::new();
            let mut used = 0;
            for input in coded.chunks(piece) {
                used += decoder.decode(input, &mut out).unwrap();
            }
            assert!(decoder.is_done());
            assert_eq!(out, b"hello big world!");
            assert_eq!(&coded[used..], b"rest");
        }
    }

    #[test]
    fn anything_else_is_broken() {
        for coded in ["x\r\n", "5;a=b\r\n", "5\nhello", "2\r\nabc", "0\r\nA: b\r\n\r\n", "\r\n"] {
            assert_eq!(Decoder::default().decode(coded.as_bytes(), &mut Vec::new()), Err(Broken));
        }
        let long = "0".repeat(17);
        assert_eq!(Decoder::default().decode(long.as_bytes(), &mut Vec::new()), Err(Broken));
    }
}
