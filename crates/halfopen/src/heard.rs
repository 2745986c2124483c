//! Reports from a host's program, of any kind.

use peer::Milestone;
use timeline::Event;
use timeline::event::Stream;

/// What a program says.
pub(crate) enum Heard {
    /// Something it did.
    Event(Event),
    /// How far it is.
    Reached(Milestone),
    /// A line of its output, where it is a web server.
    Line,
    /// A line that a command wrote, and whether it is to be kept.
    Said(Event, bool),
    /// What a command wrote, byte by byte.
    Wrote(Stream, Vec<u8>),
    /// The process that was started for a command has ended.
    Exited(Event),
    /// It has ended, and how: a sentence.
    Ended(String),
}
