//! Takes chunked transfer coding apart, byte by byte, without ever waiting for a whole chunk.

/// Longest size of a chunk: 16 hex digits hold every `u64`.
const MAX_SIZE_DIGITS: u8 = 16;
/// What all chunk extensions and trailers of one body may take together. Clients send none; what
/// comes of them is read and means nothing.
const MAX_IGNORED_BYTES: usize = 4 * 1024;

#[derive(Debug, Default)]
pub struct Decoder {
    place: Place,
    ignored: usize,
}

/// The coding is broken: the body must not be taken for complete.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    Size {
        size: u64,
        digits: u8,
    },
    /// Space behind a size.
    Space {
        size: u64,
    },
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    Done,
}

impl Decoder {
    /// Whether the last chunk has been read to its end.
    pub fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// Reads `input` and writes the data in it to the beginning of `out`; how many bytes it has used, and how
    /// many it has written. It stops at the end of the body, and where `out` is full.
    ///
    /// # Errors
    /// [`Broken`] when the input is not chunked coding.
    pub fn decode(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Broken> {
        let (mut used, mut written) = (0, 0);
        while used < input.len() && self.place != Place::Done {
            if let Place::Data { left } = self.place {
                let room = (input.len() - used).min(out.len() - written);
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(room);
                if count == 0 {
                    break;
                }
                out[written..written + count].copy_from_slice(&input[used..used + count]);
                used += count;
                written += count;
                let left = left - count as u64;
                self.place = if left == 0 { Place::DataCr } else { Place::Data { left } };
                continue;
            }
            self.place = step(self.place, input[used]).ok_or(Broken)?;
            used += 1;
            if matches!(self.place, Place::Space { .. } | Place::Extension { .. } | Place::Trailer) {
                self.ignored += 1;
                if self.ignored > MAX_IGNORED_BYTES {
                    return Err(Broken);
                }
            }
        }
        Ok((used, written))
    }
}

fn step(place: Place, byte: u8) -> Option<Place> {
    let is_text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    Some(match (place, byte) {
        (Place::Start, _) => Place::Size { size: hex(byte)?, digits: 1 },
        (Place::Size { size, .. } | Place::Space { size } | Place::Extension { size }, b'\r') => {
            Place::SizeLf { size }
        }
        (Place::Size { size, .. } | Place::Space { size }, b' ' | b'\t') => Place::Space { size },
        (Place::Size { size, .. } | Place::Space { size }, b';') => Place::Extension { size },
        (Place::Extension { size }, _) if is_text => Place::Extension { size },
        (Place::Size { size, digits }, _) if digits < MAX_SIZE_DIGITS => {
            Place::Size { size: size << 4 | hex(byte)?, digits: digits + 1 }
        }
        (Place::SizeLf { size: 0 }, b'\n') => Place::TrailerStart,
        (Place::SizeLf { size }, b'\n') => Place::Data { left: size },
        (Place::DataCr, b'\r') => Place::DataLf,
        (Place::DataLf, b'\n') => Place::Start,
        (Place::TrailerStart, b'\r') => Place::LastLf,
        (Place::Trailer, b'\r') => Place::TrailerLf,
        (Place::TrailerStart | Place::Trailer, _) if is_text => Place::Trailer,
        (Place::TrailerLf, b'\n') => Place::TrailerStart,
        (Place::LastLf, b'\n') => Place::Done,
        _ => return None,
    })
}

fn hex(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8], piece: usize, room: usize) -> Result<(Vec<u8>, usize, bool), Broken> {
        let (mut decoder, mut data, mut used) = (Decoder::default(), Vec::new(), 0);
        let mut out = vec![0; room];
        while used < coded.len() && !decoder.is_done() {
            let input = &coded[used..coded.len().min(used + piece)];
            let (taken, written) = decoder.decode(input, &mut out)?;
            data.extend_from_slice(&out[..written]);
            used += taken;
        }
        Ok((data, used, decoder.is_done()))
    }

    #[test]
    fn a_body_may_arrive_in_any_pieces() {
        let coded = b"5 \t\r\nhello\r\nB ;x=\"y\" \r\n big world!\r\n000\r\nA: b\r\nC:\r\n\r\nrest";
        for piece in 1..coded.len() {
            for room in [1, 3, 100] {
                let (data, used, is_done) = decoded(coded, piece, room).unwrap();
                assert!(is_done);
                assert_eq!(data, b"hello big world!");
                assert_eq!(&coded[used..], b"rest");
            }
        }
        let cut = decoded(b"5\r\nhello\r\n0\r\n\r", 100, 100).unwrap();
        assert_eq!(cut, (b"hello".to_vec(), 14, false));
    }

    #[test]
    fn anything_else_is_broken() {
        for coded in [
            "x\r\n", "5\nhello", "2\r\nabc", "\r\n", "-1\r\n", "0x5\r\n", "5;\n", "0\r\nA\n", ";\r\n",
            "5 6\r\n", "5 x\r\n",
        ] {
            assert_eq!(decoded(coded.as_bytes(), 100, 100), Err(Broken), "{coded:?}");
        }
        let sizes = ["0".repeat(17), format!("5;{}", "x".repeat(5000)), format!("0\r\n{}", "x".repeat(5000))];
        for coded in sizes {
            assert_eq!(decoded(coded.as_bytes(), 1000, 100), Err(Broken));
        }
    }
}
