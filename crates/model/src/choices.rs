//! What cannot be known within a step is tried both ways.

/// Answers to what cannot be known within a step, one series of them after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Choices {
    given: Vec<bool>,
    at: usize,
}

impl Choices {
    pub(crate) fn either(&mut self) -> bool {
        if self.at == self.given.len() {
            self.given.push(false);
        }
        self.at += 1;
        self.given[self.at - 1]
    }

    /// Goes to the next series; says whether there is one.
    pub(crate) fn next(&mut self) -> bool {
        self.at = 0;
        while let Some(last) = self.given.pop() {
            if !last {
                self.given.push(true);
                return true;
            }
        }
        false
    }
}
