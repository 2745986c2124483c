//! The timers that have fired on the way to a run: a list that runs share up to where they part.

use crate::prediction::StepKind;
use std::rc::Rc;

/// One timer that fired, in all pasts that are one by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry {
    pub(crate) kind: StepKind,
    /// After the reference: the earliest; the latest where no timer before it ran late; the latest.
    pub(crate) after_ns: (u64, u64, u64),
    /// Whether these are moments yet, the same for all pasts that are one, whenever they began.
    pub(super) is_moment: bool,
    /// The same by the textbook.
    pub(crate) nominal_ns: u64,
    pub(crate) timeout_ns: u64,
    pub(crate) held: bool,
}

impl Expiry {
    /// Seen from references of this span.
    fn since(self, start: (u64, u64)) -> Self {
        if !self.is_moment {
            return self;
        }
        let (from, on_time, to) = self.after_ns;
        let after_ns = (
            from.saturating_sub(start.1),
            on_time.saturating_sub(start.0),
            to.saturating_sub(start.0),
        );
        Self { after_ns, is_moment: false, ..self }
    }

    /// The same in other pasts as well.
    fn with(self, other: &Self) -> Self {
        let ((least, on_time, most), others) = (self.after_ns, other.after_ns);
        Self {
            after_ns: (least.min(others.0), on_time.max(others.1), most.max(others.2)),
            nominal_ns: self.nominal_ns.min(other.nominal_ns),
            held: self.held && other.held,
            ..self
        }
    }
}

/// What fired, the last first.
#[derive(Debug, Clone, Default)]
pub(super) struct Log(Option<Rc<Fired>>);

#[derive(Debug)]
struct Fired {
    expiry: Expiry,
    before: Log,
}

impl Log {
    pub(super) fn push(&mut self, expiry: Expiry) {
        let before = std::mem::take(self);
        self.0 = Some(Rc::new(Fired { expiry, before }));
    }

    /// The same seen from references of this span, whatever becomes of them.
    pub(super) fn settled(&self, start: (u64, u64)) -> Self {
        let mut settled = Self::default();
        for expiry in self.expiries(start) {
            settled.push(expiry);
        }
        settled
    }

    pub(super) fn last(&self) -> Option<&Expiry> {
        self.0.as_ref().map(|fired| &fired.expiry)
    }

    /// In order, seen from references of this span.
    pub(super) fn expiries(&self, start: (u64, u64)) -> Vec<Expiry> {
        let mut all: Vec<_> = self.backwards().map(|fired| fired.expiry.since(start)).collect();
        all.reverse();
        all
    }

    fn backwards(&self) -> impl Iterator<Item = &Rc<Fired>> {
        std::iter::successors(self.0.as_ref(), |fired| fired.before.0.as_ref())
    }

    /// Two logs of the same timers as one, each with the span of its references. One that holds the
    /// other stays as it is, so that what comes of both is one, too.
    pub(super) fn merge(self, start: (u64, u64), other: Self, others_start: (u64, u64)) -> Self {
        let both = || self.backwards().zip(other.backwards());
        let apart = || both().take_while(|(one, other)| !Rc::ptr_eq(one, other));
        let hull = |one: Expiry, other: Expiry| {
            if one == other && one.is_moment {
                return one;
            }
            one.since(start).with(&other.since(others_start))
        };
        let hulls: Vec<_> = apart().map(|(one, other)| hull(one.expiry, other.expiry)).collect();
        if apart().zip(&hulls).all(|((one, _), hull)| one.expiry == *hull) {
            return self;
        }
        if apart().zip(&hulls).all(|((_, other), hull)| other.expiry == *hull) {
            return other;
        }
        let shared = both().nth(hulls.len()).map(|(one, _)| Rc::clone(one));
        let mut merged = Self(shared);
        hulls.into_iter().rev().for_each(|hull| merged.push(hull));
        merged
    }
}
