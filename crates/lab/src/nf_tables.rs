//! Rules for forwarded packets, by nf_tables: one table, one chain in the forward hook, one rule.
//!
//! What `nft` does, said to the kernel directly: that program is not everywhere, and no kept library
//! speaks nf_tables without it or a C library. The family `inet` serves IPv4 and IPv6 alike.

use crate::error::Error;
use crate::netlink::{Message, Socket};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE};

/// One step of a rule: its name and its attributes.
pub(crate) type Expression = (&'static str, Message);

/// Attributes alone.
pub(crate) fn attributes() -> Message {
    Message::new(0, 0, &[])
}

/// Puts a rule of these expressions in force, in one transaction.
///
/// # Errors
/// [`Error::Unsupported`] where the kernel lacks nf_tables or one of the expressions.
pub(crate) fn begin(
    netfilter: &mut Socket,
    doing: &str,
    expressions: &[Expression],
) -> Result<(), Error> {
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
            expressions.iter().fold(list, |list, (name, data)| {
                list.with_nested(NFTA_LIST_ELEM, |expression| {
                    let expression = expression.with_text(NFTA_EXPR_NAME, name);
                    expression.with_nested(NFTA_EXPR_DATA, |_| data.clone())
                })
            })
        });
    netfilter.ask_all(format_args!("{doing} by nf_tables"), &batch([table, chain, rule])).map_err(
        |error| match error {
            // The module of the family or of an expression is not there.
            Error::Kernel { source, doing, .. } if source.raw_os_error() == Some(libc::ENOENT) => {
                let modules: Vec<_> = expressions
                    .iter()
                    .map(|(name, _)| if *name == "reject" { "nft_reject_inet".into() } else { format!("nft_{name}") })
                    .collect();
                Error::Unsupported {
                    what: doing,
                    remedy: format!(
                        "this kernel has no nf_tables, or not what this rule needs \
                         (CONFIG_NF_TABLES_INET, CONFIG_NFT_REJECT_INET, CONFIG_NFT_CT), or may not \
                         load it from a user namespace (as root: `modprobe -a {}`)",
                        modules.join(" ")
                    ),
                }
            }
            error => error,
        },
    )
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
