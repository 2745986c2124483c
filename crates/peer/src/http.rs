//! Requests by HTTP/1.1 on one connection that is kept alive, and the check of their answers.

/// What a client has asked a web server, and what came back. Each request is for a path of its own,
/// which the server answers with: an answer that is lost or comes twice is noticed.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    host: String,
    asked: u64,
    answered: u64,
    bytes: u64,
    pending: Vec<u8>,
}

/// An answer that is not the one to the oldest request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong;

impl Requests {
    pub(crate) fn new(host: impl Into<String>) -> Self {
        Self { host: host.into(), asked: 0, answered: 0, bytes: 0, pending: Vec::new() }
    }

    /// The next request.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        self.asked += 1;
        format!("GET /{} HTTP/1.1\r\nHost: {}\r\n\r\n", self.asked, self.host).into_bytes()
    }

    /// Takes the last request back: it was not sent.
    pub(crate) fn back(&mut self) {
        self.asked -= 1;
    }

    /// Takes what was received: whole answers, or parts of them.
    pub(crate) fn take(&mut self, received: &[u8]) -> Result<(), Wrong> {
        self.pending.extend_from_slice(received);
        self.bytes += received.len() as u64;
        while let Some((answer, length)) = first_answer(&self.pending)? {
            self.answered += 1;
            if answer != format!("/{}", self.answered).as_bytes() {
                return Err(Wrong);
            }
            self.pending.drain(..length);
        }
        Ok(())
    }

    /// Whether every request has its answer.
    pub(crate) fn all_answered(&self) -> bool {
        self.asked == self.answered
    }

    /// How many bytes came.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The body of the first answer, and the length of the whole of it; `None` while it is incomplete.
fn first_answer(pending: &[u8]) -> Result<Option<(&[u8], usize)>, Wrong> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(head) = pending.windows(END.len()).position(|four| four == END) else {
        return Ok(None);
    };
    let text = str::from_utf8(&pending[..head]).map_err(|_| Wrong)?;
    let mut lines = text.split("\r\n");
    if !lines.next().is_some_and(|status| status.starts_with("HTTP/1.1 200 ")) {
        return Err(Wrong);
    }
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, length)| length.trim().parse::<usize>().ok())
        .ok_or(Wrong)?;
    let body = head + END.len();
    Ok(pending.get(body..).and_then(|rest| rest.get(..length)).map(|text| (text, body + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nServer: nginx\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            .into_bytes()
    }

    #[test]
    fn answers_are_taken_in_whatever_pieces_they_come() {
        let mut requests = Requests::new("h");
        assert_eq!(requests.next(), b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
        requests.next();
        let both = [answer("/1"), answer("/2")].concat();
        for byte in &both[..both.len() - 1] {
            assert_eq!(requests.take(&[*byte]), Ok(()));
            assert!(!requests.all_answered());
        }
        assert_eq!(requests.take(&both[both.len() - 1..]), Ok(()));
        assert!(requests.all_answered());
        assert_eq!(requests.bytes(), both.len() as u64);
    }

    #[test]
    fn another_answer_is_noticed() {
        let refused = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec();
        for wrong in [answer("/2"), answer("/11"), refused] {
            let mut requests = Requests::new("h");
            requests.next();
            assert_eq!(requests.take(&wrong), Err(Wrong));
        }
    }
}
