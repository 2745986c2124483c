//! A router that forgets idle flows, as NAT and load balancers do: the kernel's own connection tracking
//! (net/netfilter/nf_conntrack_proto_tcp.c) with short timeouts, and a rule for what belongs to no flow
//! that it knows: what `nft add rule inet halfopen forward ct state invalid drop` does.

use crate::error::Error;
use crate::netlink::Socket;
use crate::nf_tables::{self, attributes};
use crate::{reject, sysctl};
use netns::Namespace;
use spec::{Answer, Reject};
use std::time::Duration;

/// Begins to track connections in the router's namespace, and forgets those that are idle for so long,
/// whole seconds. It must come before the SYN.
///
/// # Errors
/// [`Error::Unsupported`] where the kernel has no connection tracking.
pub(crate) fn begin(
    router: &Namespace,
    netfilter: &mut Socket,
    idle: Duration,
    answer: Answer,
) -> Result<(), Error> {
    // `ct state & invalid != 0`.
    let state = attributes()
        .with(NFTA_CT_DREG, &NFT_REG_1.to_be_bytes())
        .with(NFTA_CT_KEY, &NFT_CT_STATE.to_be_bytes());
    let value = |bits: u32| attributes().with(NFTA_DATA_VALUE, &bits.to_ne_bytes());
    let is_invalid = attributes()
        .with(NFTA_BITWISE_SREG, &NFT_REG_1.to_be_bytes())
        .with(NFTA_BITWISE_DREG, &NFT_REG_1.to_be_bytes())
        .with(NFTA_BITWISE_LEN, &4u32.to_be_bytes())
        .with_nested(NFTA_BITWISE_MASK, |_| value(NF_CT_STATE_INVALID_BIT))
        .with_nested(NFTA_BITWISE_XOR, |_| value(0));
    let matches = attributes()
        .with(NFTA_CMP_SREG, &NFT_REG_1.to_be_bytes())
        .with(NFTA_CMP_OP, &NFT_CMP_NEQ.to_be_bytes())
        .with_nested(NFTA_CMP_DATA, |_| value(0));
    let then = match answer {
        Answer::TcpReset => reject::expression(Reject::TcpReset),
        Answer::Silent => {
            let drop = attributes()
                .with(NFTA_IMMEDIATE_DREG, &NFT_REG_VERDICT.to_be_bytes())
                .with_nested(NFTA_IMMEDIATE_DATA, |data| {
                    data.with_nested(NFTA_DATA_VERDICT, |verdict| {
                        verdict.with(NFTA_VERDICT_CODE, &NF_DROP.to_be_bytes())
                    })
                });
            ("immediate", drop)
        }
    };
    let rule = [("ct", state), ("bitwise", is_invalid), ("cmp", matches), then];
    nf_tables::begin(netfilter, "forgetting idle flows", &rule)?;
    // They are there once the rule has brought connection tracking in.
    let seconds = idle.as_secs().to_string();
    let settings = TIMEOUTS.iter().map(|name| (*name, seconds.as_str()));
    router
        .run(|| settings.chain([("loose", "0")]).try_for_each(|(name, value)| set(name, value)))
        .map_err(|source| Error::Namespace { doing: "setting up connection tracking", source })?
}

/// A flow is as idle in any of these states.
const TIMEOUTS: [&str; 6] = [
    "timeout_established",
    "timeout_unacknowledged",
    "timeout_max_retrans",
    "timeout_fin_wait",
    "timeout_close_wait",
    "timeout_last_ack",
];

fn set(name: &str, value: &str) -> Result<(), Error> {
    let path = format!("netfilter/nf_conntrack_tcp_{name}");
    let present = sysctl::write_if_present(&path, value).map_err(|source| {
        Error::kernel(format!("writing {value} to /proc/sys/net/{path}"), source)
    })?;
    if present {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: "connection tracking with a timeout".to_owned(),
        remedy: format!("this kernel has no /proc/sys/net/{path} (CONFIG_NF_CONNTRACK)"),
    })
}

// include/uapi/linux/netfilter/nf_tables.h, nf_conntrack_common.h
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFT_CT_STATE: u32 = 0;
const NF_CT_STATE_INVALID_BIT: u32 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFT_CMP_NEQ: u32 = 1;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NF_DROP: u32 = 0;
