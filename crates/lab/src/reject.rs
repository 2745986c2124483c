//! Rejecting forwarded packets by nf_tables: one table, one chain in the forward hook, one rule.
//!
//! What `nft add rule inet halfopen forward reject with icmpx host-unreachable` does, said to the
//! kernel directly: that program is not everywhere, and no kept library speaks nf_tables without
//! it or a C library. No connection tracking is involved, and both directions are rejected. The
//! family `inet` serves IPv4 and IPv6 alike, and `icmpx` names what each of them calls by a code of
//! its own (net/netfilter/nft_reject.c).

use crate::error::Error;
use crate::netlink::{Message, Socket};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE};
use spec::Reject;

/// Begins to reject, in one transaction.
pub(crate) fn begin(netfilter: &mut Socket, kind: Reject) -> Result<(), Error> {
    let (how, code) = match kind {
        Reject::TcpReset => (NFT_REJECT_TCP_RST, None),
        Reject::NetUnreachable => (NFT_REJECT_ICMPX_UNREACH, Some(NFT_REJECT_ICMPX_NO_ROUTE)),
        Reject::PortUnreachable => (NFT_REJECT_ICMPX_UNREACH, Some(NFT_REJECT_ICMPX_PORT_UNREACH)),
        Reject::HostUnreachable => (NFT_REJECT_ICMPX_UNREACH, Some(NFT_REJECT_ICMPX_HOST_UNREACH)),
        Reject::AdminProhibited => {
            (NFT_REJECT_ICMPX_UNREACH, Some(NFT_REJECT_ICMPX_ADMIN_PROHIBITED))
        }
    };
    let table = create(NFT_MSG_NEWTABLE).with_text(NFTA_TABLE_NAME, TABLE);
    let chain = create(NFT_MSG_NEWCHAIN)
        .with_text(NFTA_CHAIN_TABLE, TABLE)
        .with_text(NFTA_CHAIN_NAME, CHAIN)
        .with_nested(NFTA_CHAIN_HOOK, |hook| {
            hook.with(NFTA_HOOK_HOOKNUM, &NF_INET_FORWARD.to_be_bytes())
                .with(NFTA_HOOK_PRIORITY, &0u32.to_be_bytes())
        })
        .with_text(NFTA_CHAIN_TYPE, "filter");
    let rule = create(NFT_MSG_NEWRULE)
        .with_text(NFTA_RULE_TABLE, TABLE)
        .with_text(NFTA_RULE_CHAIN, CHAIN)
        .with_nested(NFTA_RULE_EXPRESSIONS, |list| {
            list.with_nested(NFTA_LIST_ELEM, |expression| {
                expression.with_text(NFTA_EXPR_NAME, "reject").with_nested(NFTA_EXPR_DATA, |data| {
                    let data = data.with(NFTA_REJECT_TYPE, &how.to_be_bytes());
                    match code {
                        Some(code) => data.with(NFTA_REJECT_ICMP_CODE, &[code]),
                        None => data,
                    }
                })
            })
        });
    netfilter
        .ask_all(format_args!("rejecting with {kind} by nf_tables"), &batch([table, chain, rule]))
        .map_err(|error| match error {
            // The module of the family or of the expression is not there.
            Error::Kernel { source, doing, .. } if source.raw_os_error() == Some(libc::ENOENT) => {
                Error::Unsupported {
                    what: doing,
                    remedy: "this kernel has no nf_tables, or not its families and `reject` \
                             (CONFIG_NF_TABLES_INET, CONFIG_NFT_REJECT_INET), or may not load them \
                             from a user namespace (`modprobe nft_reject_inet` as root)"
                        .to_owned(),
                }
            }
            error => error,
        })
}

/// Ends it.
pub(crate) fn end(netfilter: &mut Socket) -> Result<(), Error> {
    let table = Message::new(kind(NFT_MSG_DELTABLE), NLM_F_ACK, &header(NFPROTO_INET, 0))
        .with_text(NFTA_TABLE_NAME, TABLE);
    netfilter.ask_all(format_args!("removing the nf_tables table {TABLE}"), &batch([table]))
}

const TABLE: &str = "halfopen";
const CHAIN: &str = "forward";

// include/uapi/linux/netfilter/nfnetlink.h, nf_tables.h, netfilter.h
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_REJECT_TYPE: u16 = 1;
const NFTA_REJECT_ICMP_CODE: u16 = 2;
const NFT_REJECT_TCP_RST: u32 = 1;
const NFT_REJECT_ICMPX_UNREACH: u32 = 2;
const NFT_REJECT_ICMPX_NO_ROUTE: u8 = 0;
const NFT_REJECT_ICMPX_PORT_UNREACH: u8 = 1;
const NFT_REJECT_ICMPX_HOST_UNREACH: u8 = 2;
const NFT_REJECT_ICMPX_ADMIN_PROHIBITED: u8 = 3;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NF_INET_FORWARD: u32 = 2;

/// Messages the kernel takes as one transaction: all or nothing.
fn batch<const N: usize>(messages: [Message; N]) -> Vec<Message> {
    let bracket = |kind| Message::new(kind, 0, &header(NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES));
    let begin = std::iter::once(bracket(NFNL_MSG_BATCH_BEGIN));
    begin.chain(messages).chain(std::iter::once(bracket(NFNL_MSG_BATCH_END))).collect()
}

fn create(message: u16) -> Message {
    Message::new(kind(message), NLM_F_CREATE | NLM_F_ACK, &header(NFPROTO_INET, 0))
}

fn kind(message: u16) -> u16 {
    NFNL_SUBSYS_NFTABLES << 8 | message
}

/// `struct nfgenmsg`: family, version, resource (big-endian).
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}
