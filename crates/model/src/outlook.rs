//! What a live socket's program will find out, and when, if its peer has gone: what `halfopen
//! audit` says of each.

use crate::{IfIt, Prediction, predict_socket};
use spec::facts::TcpFacts;
use spec::{Facts, TcpState};

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

/// When its program finds out, in each case.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// What it does now.
    pub doing: Doing,
    /// If it makes no call.
    pub if_idle: Prediction,
    /// If it writes now; `None` where it cannot write any more, or not yet.
    pub if_it_writes: Option<Prediction>,
    /// It already waits for an answer that does not come, and this is when it ends. Segments in
    /// flight alone are no trouble.
    pub in_trouble: bool,
}

/// What there is to say of a socket from one look at it; times count from the look.
pub fn outlook(facts: &Facts) -> Outlook {
    let tcp = facts.tcp.as_ref();
    let doing = tcp.map_or(Doing::Idle, doing);
    let state = tcp.and_then(|tcp| tcp.state);
    let can_write = matches!(state, None | Some(TcpState::Established | TcpState::CloseWait));
    let if_idle = predict_socket(facts, IfIt::StaysAsItIs);
    let in_trouble = match doing {
        Doing::Idle => false,
        Doing::Unacknowledged => {
            state == Some(TcpState::SynSent) || tcp.is_some_and(|tcp| tcp.retransmits > 0)
        }
        Doing::Probing | Doing::ClosedWindow | Doing::Closing => true,
    };
    let if_it_writes = can_write.then(|| predict_socket(facts, IfIt::WritesNow));
    Outlook { doing, if_idle, if_it_writes, in_trouble }
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
