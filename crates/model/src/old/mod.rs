//! What is left of the machine that the engine replaces: the write timer with intervals of lateness.
//! It answers where that can be had no other way fast enough: on a real clock, where errors by ICMP
//! or a neighbour's timer come in between, or the program goes on writing.

mod course;
mod retransmit;
mod sender;
mod slip;

pub(crate) use course::Courses;
pub(crate) use retransmit::{courses, courses_at};
pub(crate) use slip::Slip;
