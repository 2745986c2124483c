//! When a program finds out: in short, and for a live socket what `halfopen audit` says of it.

use crate::{IfIt, Prediction, predict_socket};
use spec::facts::TcpFacts;
use spec::{Facts, Outcome, TcpState};
use std::time::Duration;

/// When a program is told that its peer is gone: a prediction in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is told this, between these two times.
    Within(Outcome, Duration, Duration),
    /// The model cannot say.
    Unknown,
    /// Never.
    Never,
}

impl Found {
    /// The hull of all windows, with the outcome of the first; never, if it may be never.
    pub fn of(prediction: &Prediction) -> Self {
        if prediction.unknown.is_some() {
            return Self::Unknown;
        }
        if prediction.windows.iter().any(|window| window.outcome == Outcome::None) {
            return Self::Never;
        }
        match (prediction.windows.first(), prediction.hull()) {
            (Some(window), Some((earliest, latest))) => {
                Self::Within(window.outcome, earliest, latest)
            }
            _ => Self::Unknown,
        }
    }

    /// At worst; `None` where there is no such time.
    pub fn latest(self) -> Option<Duration> {
        match self {
            Self::Within(_, _, latest) => Some(latest),
            Self::Never | Self::Unknown => None,
        }
    }

    /// Whether it is sure to be no later than this.
    pub fn by(self, most: Duration) -> bool {
        self.latest().is_some_and(|latest| latest <= most)
    }

    /// The worse of two: the one that may be later; never is the worst.
    #[must_use]
    pub fn or_worse(self, other: Self) -> Self {
        if other.badness() > self.badness() { other } else { self }
    }

    /// Greater is worse.
    pub fn badness(self) -> (u8, Duration) {
        match self {
            Self::Within(_, _, latest) => (0, latest),
            Self::Unknown => (1, Duration::ZERO),
            Self::Never => (2, Duration::ZERO),
        }
    }
}

/// What a socket does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doing {
    /// Nothing is out.
    Idle,
    /// Data or a SYN is out and not acknowledged.
    Unacknowledged,
    /// Keepalive probes are out.
    Probing,
    /// Its peer's window takes nothing.
    ClosedWindow,
    /// A FIN is out, or its program has closed it.
    Closing,
}

/// When the program of a live socket finds out, in each case. Times count from the look at it.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// What it does now.
    pub doing: Doing,
    /// If it makes no call.
    pub if_idle: Found,
    /// If it writes now; `None` where it cannot write any more, or not yet.
    pub if_it_writes: Option<Found>,
    /// It already waits for an answer that does not come, and this is when it ends. Segments in
    /// flight alone are no trouble.
    pub in_trouble: bool,
    /// Why it finds out then if it makes no call, in one plain sentence.
    pub why: String,
    /// What the model cannot say, and the reason.
    pub unknown: Option<String>,
}

/// What there is to say of a socket from one look at it.
pub fn outlook(facts: &Facts) -> Outlook {
    let tcp = facts.tcp.as_ref();
    let doing = tcp.map_or(Doing::Idle, doing);
    let state = tcp.and_then(|tcp| tcp.state);
    let can_write = matches!(state, None | Some(TcpState::Established | TcpState::CloseWait));
    let in_trouble = match doing {
        Doing::Idle => false,
        Doing::Unacknowledged => {
            state == Some(TcpState::SynSent) || tcp.is_some_and(|tcp| tcp.retransmits > 0)
        }
        Doing::Probing | Doing::ClosedWindow | Doing::Closing => true,
    };
    let if_idle = predict_socket(facts, IfIt::StaysAsItIs);
    let writes = || Found::of(&predict_socket(facts, IfIt::WritesNow));
    Outlook {
        doing,
        if_idle: Found::of(&if_idle),
        if_it_writes: can_write.then(writes),
        in_trouble,
        why: if_idle.why,
        unknown: if_idle.unknown,
    }
}

impl Outlook {
    /// The same of a socket of which the model cannot say more, for this reason.
    #[must_use]
    pub fn unknown(self, why: &str) -> Self {
        Self {
            if_idle: Found::Unknown,
            if_it_writes: self.if_it_writes.map(|_| Found::Unknown),
            why: String::new(),
            unknown: Some(why.to_owned()),
            ..self
        }
    }

    /// The same of a socket that a TCP_USER_TIMEOUT, which nobody can see, may end sooner.
    #[must_use]
    pub fn or_sooner(self) -> Self {
        let if_idle = match self.if_idle {
            Found::Within(outcome, _, latest) => Found::Within(outcome, Duration::ZERO, latest),
            found @ (Found::Never | Found::Unknown) => found,
        };
        Self { if_idle, ..self }
    }

    /// When it finds out, whether it makes no call or writes, at worst.
    pub fn worst(&self) -> Found {
        self.if_it_writes.map_or(self.if_idle, |writes| self.if_idle.or_worse(writes))
    }
}

fn doing(tcp: &TcpFacts) -> Doing {
    match tcp.state {
        Some(TcpState::FinWait1 | TcpState::Closing | TcpState::LastAck) => return Doing::Closing,
        Some(TcpState::FinWait2) if tcp.inode == Some(0) => return Doing::Closing,
        _ => {}
    }
    match tcp.timer {
        TcpFacts::TIMER_PROBE0 => Doing::ClosedWindow,
        TcpFacts::TIMER_KEEPALIVE if tcp.probes > 0 => Doing::Probing,
        0 | TcpFacts::TIMER_KEEPALIVE => Doing::Idle,
        _ => Doing::Unacknowledged,
    }
}
