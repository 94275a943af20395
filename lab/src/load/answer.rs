//! Reads answers from the bytes of one connection, however the network cut them into pieces.

use std::io;
use std::ops::Range;

/// More fields than the service and nginx together send.
const FIELDS_MAX: usize = 32;
/// What one read may bring. An answer is under a kilobyte; longer ones just take more reads.
const READ_SIZE: usize = 4_096;

/// The bytes that have arrived and were not used yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// How many of them belong to answers that were already given out.
    used: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
    /// The server said that it closes the connection after this.
    pub(super) closes: bool,
}

impl Inbox {
    /// Where the next read may put its bytes.
    pub(super) fn space(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.used);
        self.used = 0;
        self.bytes.reserve(READ_SIZE);
        &mut self.bytes
    }

    /// The next answer, once all of it is there. The error is of the kind `InvalidData`: these bytes are none that this reader
    /// understands.
    pub(super) fn next(&mut self) -> io::Result<Option<Answer<'_>>> {
        let unused = &self.bytes[self.used..];
        let Some((status, closes, body)) = read_head(unused)?.filter(|(_, _, body)| body.end <= unused.len()) else {
            return Ok(None);
        };
        let start = self.used + body.start;
        self.used += body.end;
        Ok(Some(Answer { status, closes, body: &self.bytes[start..self.used] }))
    }
}

/// Status, whether the server closes the connection after this, and where the body is, once all of the head is there.
fn read_head(bytes: &[u8]) -> io::Result<Option<(u16, bool, Range<usize>)>> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(before) = response.parse(bytes).map_err(|_| malformed())? else { return Ok(None) };
    let status = response.code.ok_or_else(malformed)?;
    let (mut closes, mut body) = (response.version == Some(0), None);
    for field in &*response.headers {
        if field.name.eq_ignore_ascii_case("content-length") {
            body = std::str::from_utf8(field.value).ok().and_then(|text| text.parse().ok());
        } else if field.name.eq_ignore_ascii_case("connection") {
            closes = field.value.eq_ignore_ascii_case(b"close");
        }
    }
    // Without a length only these have an end: nginx and the service give one with everything else.
    let length: usize = body.or(matches!(status, 204 | 304).then_some(0)).ok_or_else(malformed)?;
    Ok(Some((status, closes, before..before + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: &[u8] = b"HTTP/1.1 201 Created\r\nServer: nginx\r\ncontent-LENGTH: 5\r\n\r\n{\"a\"}";
    const CLOSING: &[u8] = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n";

    /// Reads whatever is whole after each piece.
    fn read(pieces: &[&[u8]]) -> Vec<(u16, Vec<u8>, bool)> {
        let mut inbox = Inbox::default();
        let mut answers = Vec::new();
        for piece in pieces {
            inbox.space().extend_from_slice(piece);
            while let Some(answer) = inbox.next().unwrap() {
                answers.push((answer.status, answer.body.to_vec(), answer.closes));
            }
        }
        answers
    }

    #[test]
    fn answers_are_the_same_in_one_piece_in_two_and_byte_by_byte() {
        let all = [CREATED, CLOSING, CREATED].concat();
        let created = (201, b"{\"a\"}".to_vec(), false);
        let expected = [created.clone(), (503, Vec::new(), true), created];

        assert_eq!(read(&[&all]), expected);
        assert_eq!(read(&all.chunks(1).collect::<Vec<_>>()), expected);
        for cut in 1..all.len() {
            assert_eq!(read(&[&all[..cut], &all[cut..]]), expected, "cut at {cut}");
        }
    }

    #[test]
    fn an_end_that_cannot_be_known_is_an_error() {
        for bad in ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "SSH-2.0-OpenSSH\r\n\r\n"] {
            let mut inbox = Inbox::default();
            inbox.space().extend_from_slice(bad.as_bytes());
            assert_eq!(inbox.next().unwrap_err().kind(), io::ErrorKind::InvalidData, "{bad}");
        }
    }
}
