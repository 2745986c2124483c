//! Rejecting forwarded packets: what `nft add rule inet halfopen forward reject with icmpx
//! host-unreachable` does. No connection tracking is involved, and both directions are rejected;
//! `icmpx` names what each family calls by a code of its own (net/netfilter/nft_reject.c).

use crate::error::Error;
use crate::netlink::Socket;
use crate::nf_tables::{self, Expression, attributes};
use spec::Reject;

/// Begins to reject.
pub(crate) fn begin(netfilter: &mut Socket, kind: Reject) -> Result<(), Error> {
    nf_tables::begin(netfilter, &format!("rejecting with {kind}"), &[expression(kind)])
}

/// Answers a packet.
pub(crate) fn expression(kind: Reject) -> Expression {
    let (how, code) = match kind {
        Reject::TcpReset => (NFT_REJECT_TCP_RST, None),
        Reject::NetUnreachable => (NFT_REJECT_ICMPX_UNREACH, Some(NFT_REJECT_ICMPX_NO_ROUTE)),
        Reject::PortUnreachable => (NFT_REJECT_ICMPX_UNREACH, Some(NFT_REJECT_ICMPX_PORT_UNREACH)),
        Reject::HostUnreachable => (NFT_REJECT_ICMPX_UNREACH, Some(NFT_REJECT_ICMPX_HOST_UNREACH)),
        Reject::AdminProhibited => {
            (NFT_REJECT_ICMPX_UNREACH, Some(NFT_REJECT_ICMPX_ADMIN_PROHIBITED))
        }
    };
    let data = attributes().with(NFTA_REJECT_TYPE, &how.to_be_bytes());
    let data = match code {
        Some(code) => data.with(NFTA_REJECT_ICMP_CODE, &[code]),
        None => data,
    };
    ("reject", data)
}

// include/uapi/linux/netfilter/nf_tables.h
const NFTA_REJECT_TYPE: u16 = 1;
const NFTA_REJECT_ICMP_CODE: u16 = 2;
const NFT_REJECT_TCP_RST: u32 = 1;
const NFT_REJECT_ICMPX_UNREACH: u32 = 2;
const NFT_REJECT_ICMPX_NO_ROUTE: u8 = 0;
const NFT_REJECT_ICMPX_PORT_UNREACH: u8 = 1;
const NFT_REJECT_ICMPX_HOST_UNREACH: u8 = 2;
const NFT_REJECT_ICMPX_ADMIN_PROHIBITED: u8 = 3;
