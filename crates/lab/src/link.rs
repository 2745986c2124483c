//! Interfaces, and what belongs to them: addresses, routes, neighbours. One rtnetlink request each.
//!
//! Interfaces are known by numbers fixed here. That saves look-ups, and it matters: the kernel
//! handles a veth's carrier at once only if its number differs from its peer's, and otherwise up
//! to a second later (`linkwatch_urgent_event`, net/core/link_watch.c); namespaces that number
//! their own interfaces both begin at 2.

use crate::netlink::{Message, Socket, attribute, u32_at};
use crate::network::Error;
use netns::Namespace;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The number of an interface.
pub(crate) type Index = u32;

/// A link-layer address.
pub(crate) type Mac = [u8; 6];

/// The loopback interface of every namespace.
pub(crate) const LOOPBACK: Index = 1;

/// How long the kernel may take over what takes it milliseconds, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// One end of a veth pair.
pub(crate) struct End<'a> {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its number.
    pub(crate) index: Index,
    /// Its link-layer address; `None`: a random one.
    pub(crate) mac: Option<Mac>,
    /// Where to put it; `None`: where the request is made.
    pub(crate) namespace: Option<&'a Namespace>,
    /// The bridge it becomes a port of.
    pub(crate) master: Option<Index>,
}

/// Makes a veth pair. The near end, which must stay where the request is made, comes up; the far
/// end cannot yet (ENOTCONN, drivers/net/veth.c `veth_open`).
pub(crate) fn veth(netlink: &mut Socket, near: &End<'_>, far: &End<'_>) -> Result<(), Error> {
    let message = Message::new(
        libc::RTM_NEWLINK,
        libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        &link_header(libc::AF_UNSPEC, near.index, Some(true)),
    );
    let message = describe(message, near).with_nested(IFLA_LINKINFO, &[], |info| {
        info.with_text(IFLA_INFO_KIND, "veth").with_nested(IFLA_INFO_DATA, &[], |data| {
            let header = link_header(libc::AF_UNSPEC, far.index, None);
            data.with_nested(VETH_INFO_PEER, &header, |peer| describe(peer, far))
        })
    });
    netlink.ask(format_args!("making the veth pair {} - {}", near.name, far.name), message)
}

/// Makes a bridge that forwards at once and says nothing of its own, and takes it up.
pub(crate) fn bridge(netlink: &mut Socket, name: &str, index: Index) -> Result<(), Error> {
    let message = Message::new(
        libc::RTM_NEWLINK,
        libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        &link_header(libc::AF_UNSPEC, index, Some(true)),
    )
    .with_text(IFLA_IFNAME, name)
    .with_nested(IFLA_LINKINFO, &[], |info| {
        info.with_text(IFLA_INFO_KIND, "bridge").with_nested(IFLA_INFO_DATA, &[], |data| {
            data.with(IFLA_BR_STP_STATE, &0u32.to_ne_bytes()).with(IFLA_BR_MCAST_SNOOPING, &[0])
        })
    });
    netlink.ask(format_args!("making the bridge {name}"), message)
}

/// Isolates a port of a bridge: nothing passes between isolated ports (`br_skb_isolated`,
/// net/bridge/br_private.h), whatever happens to their links.
pub(crate) fn isolate(netlink: &mut Socket, port: Index, isolated: bool) -> Result<(), Error> {
    let message = Message::new(libc::RTM_SETLINK, 0, &link_header(libc::AF_BRIDGE, port, None))
        .with_nested(IFLA_PROTINFO, &[], |port| {
            port.with(IFLA_BRPORT_ISOLATED, &[u8::from(isolated)])
        });
    let doing = if isolated { "isolating" } else { "joining" };
    netlink.ask(format_args!("{doing} port {port} of the switch"), message)
}

/// Takes an interface up or down.
pub(crate) fn set_up(netlink: &mut Socket, index: Index, up: bool) -> Result<(), Error> {
    let header = link_header(libc::AF_UNSPEC, index, Some(up));
    let direction = if up { "up" } else { "down" };
    netlink.ask(
        format_args!("taking interface {index} {direction}"),
        Message::new(libc::RTM_SETLINK, 0, &header),
    )
}

/// Adds an address. For IPv6, without duplicate address detection.
pub(crate) fn address(
    netlink: &mut Socket,
    index: Index,
    address: IpAddr,
    prefix_len: u8,
) -> Result<(), Error> {
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let mut header = [family(address), prefix_len, IFA_F_NODAD, 0, 0, 0, 0, 0];
    if address.is_ipv4() {
        header[2] = 0;
    }
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let message = Message::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &header)
        .with(IFA_LOCAL, &octets(address))
        .with(IFA_ADDRESS, &octets(address));
    netlink.ask(format_args!("adding the address {address}/{prefix_len}"), message)
}

/// Adds the default route.
pub(crate) fn default_route(
    netlink: &mut Socket,
    index: Index,
    gateway: IpAddr,
) -> Result<(), Error> {
    let header = route_header(gateway, 0, libc::RTN_UNICAST);
    let message = Message::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &header)
        .with(libc::RTA_GATEWAY, &octets(gateway))
        .with(libc::RTA_OIF, &index.to_ne_bytes());
    netlink.ask(format_args!("adding the default route through {gateway}"), message)
}

/// Adds or removes a route that swallows everything to one host, without an answer
/// (`RTN_BLACKHOLE`: net/ipv4/route.c `ip_error`, net/ipv6/route.c `dst_discard`).
pub(crate) fn swallow(netlink: &mut Socket, host: IpAddr, swallow: bool) -> Result<(), Error> {
    let header = route_header(host, bits(host), libc::RTN_BLACKHOLE);
    let (kind, flags, doing) = if swallow {
        (libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, "adding")
    } else {
        (libc::RTM_DELROUTE, 0, "removing")
    };
    let message = Message::new(kind, flags, &header).with(libc::RTA_DST, &octets(host));
    netlink.ask(format_args!("{doing} the blackhole route to {host}"), message)
}

/// Pins a neighbour's link-layer address.
pub(crate) fn neighbour(
    netlink: &mut Socket,
    index: Index,
    host: IpAddr,
    mac: Mac,
) -> Result<(), Error> {
    let header = neighbour_header(host, index, libc::NUD_PERMANENT);
    let message =
        Message::new(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &header)
            .with(libc::NDA_DST, &octets(host))
            .with(libc::NDA_LLADDR, &mac);
    netlink.ask(format_args!("pinning the neighbour {host}"), message)
}

/// Forgets a neighbour; one that was not known is no error.
pub(crate) fn forget(netlink: &mut Socket, index: Index, host: IpAddr) -> Result<(), Error> {
    let message = Message::new(libc::RTM_DELNEIGH, 0, &neighbour_header(host, index, 0))
        .with(libc::NDA_DST, &octets(host));
    match netlink.ask(format_args!("forgetting the neighbour {host}"), message) {
        Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    }
}

/// An interface as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    /// `IFF_UP`: somebody took it up.
    pub(crate) up: bool,
    /// `IFF_LOWER_UP`: it has a carrier.
    pub(crate) carrier: bool,
    /// `IFF_RUNNING`: the kernel has also dealt with having a carrier; frames pass.
    pub(crate) running: bool,
    /// For a port of a bridge: whether it forwards.
    pub(crate) forwarding: Option<bool>,
}

/// Looks at an interface; `None` if there is none of this number.
pub(crate) fn state(netlink: &mut Socket, index: Index) -> Result<Option<State>, Error> {
    let header = link_header(libc::AF_UNSPEC, index, None);
    let question = Message::new(libc::RTM_GETLINK, 0, &header);
    let answers = match netlink.read(format_args!("looking at interface {index}"), question) {
        Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
            return Ok(None);
        }
        answers => answers?,
    };
    Ok(answers.iter().find(|answer| answer.kind == libc::RTM_NEWLINK).map(|answer| {
        let flags = u32_at(&answer.body, 8).unwrap_or(0).cast_signed();
        let attributes = answer.body.get(LINK_HEADER_LEN..).unwrap_or_default();
        State {
            up: flags & libc::IFF_UP != 0,
            carrier: flags & libc::IFF_LOWER_UP != 0,
            running: flags & libc::IFF_RUNNING != 0,
            forwarding: attribute(attributes, IFLA_LINKINFO)
                .and_then(|info| attribute(info, IFLA_INFO_SLAVE_DATA))
                .and_then(|port| attribute(port, IFLA_BRPORT_STATE))
                .map(|state| state == [BR_STATE_FORWARDING]),
        }
    }))
}

/// Whether an IPv6 address has become one that the host answers for: the kernel installs its
/// local route in a work queue, also without duplicate address detection.
pub(crate) fn is_local(netlink: &mut Socket, address: IpAddr) -> Result<bool, Error> {
    let header = route_header(address, bits(address), 0);
    let question =
        Message::new(libc::RTM_GETROUTE, 0, &header).with(libc::RTA_DST, &octets(address));
    let answers = match netlink.read(format_args!("looking up the route to {address}"), question) {
        Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENETUNREACH) => {
            return Ok(false);
        }
        answers => answers?,
    };
    Ok(answers.iter().any(|answer| answer.body.get(7) == Some(&libc::RTN_LOCAL)))
}

/// Asks again and again until the answer is yes: for [`PATIENCE`] and a thousand times, lest a
/// machine that stood still in between pass for a kernel that did not answer.
pub(crate) fn wait_until(
    what: &str,
    mut yes: impl FnMut() -> Result<bool, Error>,
) -> Result<(), Error> {
    let began = Instant::now();
    let mut pause = Duration::from_micros(50);
    for asked in 1_u32.. {
        if yes()? {
            break;
        }
        if asked > 1000 && began.elapsed() > PATIENCE {
            return Err(Error::Late { what: what.to_owned(), waited: PATIENCE });
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(2));
    }
    Ok(())
}

// include/uapi/linux/if_link.h, if_addr.h, veth.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const BR_STATE_FORWARDING: u8 = 3;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;
const LINK_HEADER_LEN: usize = 16;

/// `struct ifinfomsg`: family, pad, type, index, flags, mask of flags to change.
fn link_header(family: i32, index: Index, up: Option<bool>) -> [u8; LINK_HEADER_LEN] {
    let mut header = [0; LINK_HEADER_LEN];
    header[0] = family as u8;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if let Some(up) = up {
        let flag = libc::IFF_UP;
        header[8..12].copy_from_slice(&if up { flag } else { 0 }.to_ne_bytes());
        header[12..16].copy_from_slice(&flag.to_ne_bytes());
    }
    header
}

/// `struct rtmsg`: family, length of destination and source, tos, table, protocol, scope, type,
/// flags.
fn route_header(host: IpAddr, prefix_len: u8, kind: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family(host);
    header[1] = prefix_len;
    header[4] = libc::RT_TABLE_MAIN;
    header[5] = libc::RTPROT_STATIC;
    header[6] = libc::RT_SCOPE_UNIVERSE;
    header[7] = kind;
    header
}

/// `struct ndmsg`: family, pad, index, state, flags, type.
fn neighbour_header(host: IpAddr, index: Index, state: u16) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family(host);
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header
}

fn describe(message: Message, end: &End<'_>) -> Message {
    // One queue: the kernel would make one for each processor.
    let mut message = message
        .with_text(IFLA_IFNAME, end.name)
        .with(IFLA_NUM_TX_QUEUES, &1u32.to_ne_bytes())
        .with(IFLA_NUM_RX_QUEUES, &1u32.to_ne_bytes());
    if let Some(mac) = end.mac {
        message = message.with(IFLA_ADDRESS, &mac);
    }
    if let Some(master) = end.master {
        message = message.with(IFLA_MASTER, &master.to_ne_bytes());
    }
    if let Some(namespace) = end.namespace {
        message = message.with(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    }
    message
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
