//! The memory of a receiver whose program does not read. An acknowledgement that would tell a smaller window
//! than the last one did is held back (`__tcp_ack_snd_check`, `tcp_measure_rcv_mss`, `tcp_grow_window`,
//! net/ipv4/tcp_input.c; `__tcp_select_window`, `tcp_select_window`, net/ipv4/tcp_output.c).

use crate::choices::Choices;
use crate::kernel::Kernel;

/// What a frame takes beside its data, bytes (`SKB_TRUESIZE(MAX_TCP_HEADER)`): up to how a kernel was built.
const HEADERS: [u32; 3] = [832, 960, 1_280];
/// What a hundred bytes at a time have left of the first window once the connection has settled.
const SETTLED_WND: u32 = 64_640;

/// The window, by all that the memory accounting may be. Without any it never becomes smaller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Room(Vec<Account>);

/// The memory accounting of one kernel; bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Account {
    header: u32,
    /// Whether a frame is gathered into the one before it once that was acknowledged (`tcp_try_coalesce`).
    gathers: bool,
    rcvbuf: u32,
    rmem_alloc: u32,
    /// Of 256.
    scaling_ratio: u32,
    window_clamp: u32,
    rcv_ssthresh: u32,
    /// The window as it was told last.
    rcv_wnd: u32,
    /// What it is told in multiples of (`rcv_wscale`).
    unit: u32,
}

impl Room {
    /// Of a connection that has settled (`tcp_init_buffer_space`), by `tcp_rmem` and the window that was told
    /// last, if these are known.
    pub(crate) fn new(cfg: &Kernel, tcp_rmem: Option<[u32; 3]>, rcv_wnd: u32) -> Self {
        let [_, rcvbuf, most] = tcp_rmem.unwrap_or([4_096, 131_072, 6_291_456]);
        let first = (rcvbuf / 2).saturating_sub(cfg.mss);
        let account = |(header, gathers)| Account {
            header,
            gathers,
            rcvbuf,
            rmem_alloc: 0,
            scaling_ratio: 128,
            window_clamp: first,
            rcv_ssthresh: first,
            rcv_wnd: if rcv_wnd == 0 { SETTLED_WND } else { rcv_wnd },
            unit: 1 << most.max(1).ilog2().saturating_sub(15).min(14),
        };
        Self(
            HEADERS
                .iter()
                .flat_map(|header| [false, true].map(|g| account((*header, g))))
                .collect(),
        )
    }

    /// A frame comes, of so many bytes; `measures`: its segments are longer than any before.
    pub(crate) fn queue(&mut self, cfg: &Kernel, bytes: u32, measures: bool, acknowledged: bool) {
        for account in &mut self.0 {
            let header = if account.gathers && acknowledged { 0 } else { account.header };
            account.rmem_alloc += bytes + header;
            if measures && cfg.scales_window {
                account.scaling_ratio = ((bytes << 8) / (bytes + account.header)).max(1);
                account.window_clamp = account.win_from_space(account.rcvbuf);
            }
            if bytes >= 128 {
                let least = account.window_clamp.min(account.free());
                let more = least.saturating_sub(account.rcv_ssthresh);
                account.rcv_ssthresh += more.min(2 * bytes.max(cfg.mss));
            }
        }
    }

    /// Whether the window is no smaller than it was told. Where that is up to the kernel, both are explored.
    pub(crate) fn keeps(&mut self, choices: &mut Choices) -> bool {
        let keeps = |account: &Account| account.window() >= account.rcv_wnd;
        let all = self.0.iter().all(keeps);
        let answer = all || (self.0.iter().any(keeps) && choices.either());
        self.0.retain(|account| keeps(account) == answer);
        answer
    }

    /// An acknowledgement tells the window, of so many bytes since the last (`tcp_select_window`).
    pub(crate) fn tell(&mut self, bytes: u32) {
        for account in &mut self.0 {
            let left = account.rcv_wnd.saturating_sub(bytes).next_multiple_of(account.unit);
            account.rcv_wnd = account.window().max(left);
        }
    }
}

impl Account {
    /// `tcp_win_from_space`.
    fn win_from_space(&self, space: u32) -> u32 {
        ((u64::from(space) * u64::from(self.scaling_ratio)) >> 8) as u32
    }

    /// `tcp_space`.
    fn free(&self) -> u32 {
        self.win_from_space(self.rcvbuf.saturating_sub(self.rmem_alloc))
    }

    /// `__tcp_select_window`.
    fn window(&self) -> u32 {
        self.free().min(self.rcv_ssthresh).next_multiple_of(self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The windows that a stopped server's kernel told, as the wire showed them (Linux 6.12 built for virtual
    /// time, `tcp_rmem` 4096 131072 2159104): frames, whether each was acknowledged at once, and the window.
    #[test]
    fn windows_are_told_as_the_kernel_tells_them() {
        let parameters = spec::Parameters::default();
        let cfg = Kernel::new(&parameters, &crate::nominal_facts(&parameters, 250));
        let told: [&[(u32, Option<u32>)]; 3] = [
            &[(1000, None), (3000, Some(73_024)), (7240, Some(87_488)), (7240, None), (5520, None)],
            &[
                (1448, None),
                (1448, Some(69_888)),
                (1448, None),
                (1448, Some(75_712)),
                (1448, None),
                (1448, None),
                (1448, None),
                (1448, None),
            ],
            &[
                (7240, Some(78_592)),
                (7240, Some(93_056)),
                (10_136, Some(93_056)),
                (4344, None),
                (1040, None),
            ],
        ];
        for frames in told {
            let mut room = Room::new(&cfg, Some([4_096, 131_072, 2_159_104]), 64_640);
            room.0.retain(|account| account.header == 832 && !account.gathers);
            let (mut rcv_mss, mut held) = (536, 0);
            for (bytes, window) in frames {
                let segment = (*bytes).min(1448);
                room.queue(&cfg, *bytes, segment > rcv_mss, false);
                rcv_mss = rcv_mss.max(segment);
                held += bytes;
                let at_once = held > rcv_mss && room.keeps(&mut Choices::default());
                assert_eq!(at_once, window.is_some(), "{frames:?}: {bytes}");
                if let Some(window) = window {
                    room.tell(std::mem::take(&mut held));
                    assert_eq!(room.0[0].rcv_wnd, *window, "{frames:?}: {bytes}");
                }
            }
        }
    }
}
