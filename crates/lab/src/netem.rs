//! Delay by the kernel's own queueing discipline, netem, where it has it.

use crate::link::{Index, LOOPBACK};
use crate::netlink::{Message, Socket};
use crate::network::Error;
use std::time::Duration;

/// Whether this kernel has netem: tried on the loopback interface of a namespace that uses none.
pub(crate) fn is_there(netlink: &mut Socket) -> Result<bool, Error> {
    match delay(netlink, LOOPBACK, Duration::from_millis(1)) {
        Ok(()) => Ok(true),
        Err(Error::Kernel { source, .. })
            if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Holds each frame that leaves through an interface.
pub(crate) fn delay(netlink: &mut Socket, index: Index, hold: Duration) -> Result<(), Error> {
    // struct tcmsg: family, pad, index, handle, parent, info.
    let mut header = [0; 20];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[12..16].copy_from_slice(&TC_H_ROOT.to_ne_bytes());
    // struct tc_netem_qopt: latency (ticks; overridden below), limit, loss, gap, duplicate, jitter.
    let mut options = [0; 24];
    options[4..8].copy_from_slice(&LIMIT.to_ne_bytes());
    let nanos = hold.as_nanos() as i64;
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let message = Message::new(libc::RTM_NEWQDISC, flags, &header)
        .with_text(libc::TCA_KIND, "netem")
        .with_nested(libc::TCA_OPTIONS, &options, |options| {
            options.with(TCA_NETEM_LATENCY64, &nanos.to_ne_bytes())
        });
    netlink.ask(format_args!("delaying frames on interface {index} by netem"), message)
}

// include/uapi/linux/pkt_sched.h
const TC_H_ROOT: u32 = 0xffff_ffff;
const TCA_NETEM_LATENCY64: u16 = 10;
/// Frames: more than a long fat path of one connection holds.
const LIMIT: u32 = 100_000;
