//! Delay by the kernel's own queueing discipline, netem, where it has it.
//!
//! rtnetlink makes and sends the request; it knows no options of netem (nor does any other kept
//! library), so that these are written out here.

use crate::error::Error;
use crate::link::{Index, LOOPBACK};
use crate::rtnl::Rtnl;
use futures_util::StreamExt;
use rtnetlink::packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use std::time::Duration;

/// Whether this kernel has netem: tried on the loopback interface of a namespace that uses none.
pub(crate) fn is_there(rtnl: &mut Rtnl) -> Result<bool, Error> {
    match delay(rtnl, LOOPBACK, Duration::from_millis(1)) {
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
pub(crate) fn delay(rtnl: &mut Rtnl, index: Index, hold: Duration) -> Result<(), Error> {
    let mut discipline = TcMessage::with_index(index.cast_signed());
    discipline.header.parent = TcHandle::ROOT;
    discipline.attributes.push(TcAttribute::Kind("netem".to_owned()));
    discipline.attributes.push(TcAttribute::Other(options(hold)));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(discipline));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    rtnl.ask(format_args!("delaying frames on interface {index} by netem"), |handle| {
        let answers = handle.clone().request(request);
        async move {
            match answers?.next().await.map(|answer| answer.payload) {
                Some(NetlinkPayload::Error(refusal)) => {
                    Err(rtnetlink::Error::NetlinkError(refusal))
                }
                _ => Ok(()),
            }
        }
    })
}

/// netem's options: `struct tc_netem_qopt`, then attributes.
fn options(hold: Duration) -> DefaultNla {
    // Latency (ticks; overridden below), limit, loss, gap, duplicate, jitter.
    let mut options = vec![0; 24];
    options[4..8].copy_from_slice(&LIMIT.to_ne_bytes());
    let nanos = hold.as_nanos() as i64;
    let latency = DefaultNla::new(TCA_NETEM_LATENCY64, nanos.to_ne_bytes().to_vec());
    let start = options.len();
    options.resize(start + latency.buffer_len(), 0);
    latency.emit(&mut options[start..]);
    DefaultNla::new(libc::TCA_OPTIONS, options)
}

// include/uapi/linux/pkt_sched.h
const TCA_NETEM_LATENCY64: u16 = 10;
/// Frames: more than a long fat path of one connection holds.
const LIMIT: u32 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_as_the_kernel_reads_them() {
        let options = options(Duration::from_millis(5));
        let mut bytes = vec![0; options.buffer_len()];
        options.emit(&mut bytes);
        let mut expected = Vec::new();
        for half in [40_u16, 2] {
            expected.extend_from_slice(&half.to_ne_bytes());
        }
        for word in [0, 100_000, 0, 0, 0, 0_u32] {
            expected.extend_from_slice(&word.to_ne_bytes());
        }
        for half in [12_u16, 10] {
            expected.extend_from_slice(&half.to_ne_bytes());
        }
        expected.extend_from_slice(&5_000_000_i64.to_ne_bytes());
        assert_eq!(bytes, expected);
    }
}
