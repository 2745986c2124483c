//! Options that change after the fault. Only a timer's expiry makes anything of an option: so they are
//! read again just before each, when keepalive is armed, and once more when the connection has ended.

use super::Trial;
use super::forecast::Forecasts;
use anyhow::Result;
use observe::clock::{hz, monotonic_ns, tick_ns};
use spec::Parameters;
use spec::facts::TcpFacts;
use timeline::event::{Timer, Trace};
use timeline::{Event, FlowId, Side, Source, What};

/// So many jiffies before a timer is due its socket is looked at: a sleeper wakes up late, and what is
/// left of a timer is known to a jiffy.
const BEFORE: u64 = 2;
/// So often at most, where a peer answers keepalive for days.
const LOOKS_MOST: u32 = 1000;

/// When a socket's options matter next, nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Default)]
pub(super) struct OptionsDue {
    write_ns: Option<u64>,
    keepalive_ns: Option<u64>,
    /// The keepalive timer has expired, and arms itself.
    keepalive_expired: bool,
    /// Something has happened that options may have to do with.
    at_once: bool,
    looks: u32,
}

impl OptionsDue {
    /// Learns from an event about the survivor's socket.
    pub(super) fn learn(&mut self, event: &Event) {
        let tick_ns = tick_ns(hz());
        let soon = |left_ns: u64| event.at_ns + left_ns.saturating_sub(BEFORE * tick_ns);
        match (&event.what, event.source) {
            (What::Trace(Trace::TimerStart { side: Side::Client, timer, now, expires, .. }), _) => {
                let due = soon(expires.saturating_sub(*now) * tick_ns);
                match timer {
                    Timer::Write => self.write_ns = Some(due),
                    Timer::Keepalive => {
                        // Setting `SO_KEEPALIVE` or `TCP_KEEPIDLE` arms it, too.
                        self.at_once |= !std::mem::take(&mut self.keepalive_expired);
                        self.keepalive_ns = Some(due);
                    }
                    Timer::DelayedAck => {}
                }
            }
            // Taking `SO_KEEPALIVE` away cancels it.
            (What::Trace(Trace::TimerCancel { side: Side::Client, timer }), _) => {
                self.at_once |= *timer == Timer::Keepalive;
            }
            (What::Trace(Trace::TimerExpire { side: Side::Client, timer, .. }), _) => {
                self.keepalive_expired |= *timer == Timer::Keepalive;
            }
            (What::Socket(sample), Source::ClientSocket) => {
                let due = soon(u64::from(sample.timer_expires_ms) * 1_000_000);
                match sample.timer {
                    TcpFacts::TIMER_KEEPALIVE => {
                        (self.write_ns, self.keepalive_ns) = (None, Some(due));
                    }
                    0 => {
                        self.at_once |= self.keepalive_ns.is_some();
                        (self.write_ns, self.keepalive_ns) = (None, None);
                    }
                    _ => self.write_ns = Some(due),
                }
            }
            _ => {}
        }
    }

    /// The connection has ended: it may have been by an option that nobody has seen.
    pub(super) fn has_ended(&mut self) {
        *self = Self { at_once: true, ..Self::default() };
    }

    /// When to look; 0: at once.
    pub(super) fn next_ns(&self) -> Option<u64> {
        let timers = self.write_ns.into_iter().chain(self.keepalive_ns);
        let next = if self.at_once { Some(0) } else { timers.min() };
        next.filter(|_| self.looks < LOOKS_MOST)
    }

    /// Whether the socket is to be looked at now, which it then is.
    pub(super) fn take(&mut self, now_ns: u64) -> bool {
        if self.next_ns().is_none_or(|at_ns| at_ns > now_ns) {
            return false;
        }
        self.looks += 1;
        self.at_once = false;
        for due in [&mut self.write_ns, &mut self.keepalive_ns] {
            *due = due.filter(|due| *due > now_ns);
        }
        true
    }
}

impl Trial {
    /// Reads the options that are due. Returns the open connections whose options have changed.
    pub(super) async fn options_changed(
        &mut self,
        parameters: &Parameters,
        forecasts: &mut Forecasts,
    ) -> Result<Vec<FlowId>> {
        let mut changed = Vec::new();
        for flow in self.flows.options_due(monotonic_ns()) {
            let Some(forecast) = forecasts.get_mut(&flow) else { continue };
            let Some(inode) = forecast.inode() else { continue };
            let [near, _] = self.parts_of(flow);
            let Some(found) = self.read_options(near, inode).await? else { continue };
            let sysctls = &parameters.later.sysctl;
            let is_changed = |before| !found.options.changed_from(before, sysctls).is_empty();
            if !forecast.options.as_ref().is_some_and(is_changed) {
                continue;
            }
            forecast.options = Some(found.options.clone());
            self.mark_options(flow, found.owner, found.options);
            if !self.flows.has_ended(flow) {
                changed.push(flow);
            }
        }
        Ok(changed)
    }
}
