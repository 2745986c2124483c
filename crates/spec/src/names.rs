//! What the two hosts are called. Within the program the survivor is the client and the other
//! the server; where `fault.host` is `client` they are called the other way round.

use crate::choice::LostHost;
use crate::experiment::Parameters;

impl Parameters {
    /// A sentence or a key about the survivor (the client) and the other host, with their names.
    pub fn named(&self, text: &str) -> String {
        match self.fault.host {
            LostHost::Server => text.to_owned(),
            LostHost::Client => turned(text),
        }
    }

    /// What the survivor and the other host are called.
    pub const fn names(&self) -> [&'static str; 2] {
        match self.fault.host {
            LostHost::Server => ["client", "server"],
            LostHost::Client => ["server", "client"],
        }
    }
}

/// The text with the words `client` and `server` exchanged. `redis-server` is another word.
fn turned(text: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || "-_".contains(c);
    let mut turned = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = is_part(first);
        let end = rest.find(|c| is_part(c) != is_word).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        turned.push_str(match piece {
            "client" => "server",
            "server" => "client",
            other => other,
        });
        rest = after;
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_change_places() {
        for (text, other) in [
            ("the server's host is destroyed", "the client's host is destroyed"),
            ("`client.keepalive.idle` at the server", "`server.keepalive.idle` at the client"),
            ("redis-server and clients", "redis-server and clients"),
            ("", ""),
        ] {
            assert_eq!((turned(text), turned(other)), (other.to_owned(), text.to_owned()));
        }
    }
}
