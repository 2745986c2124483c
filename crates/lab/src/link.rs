//! Interfaces, and what belongs to them: addresses, routes, neighbours. One rtnetlink request each.
//!
//! Interfaces are known by numbers fixed here. That saves look-ups, and it matters: the kernel
//! handles a veth's carrier at once only if its number differs from its peer's, and otherwise up
//! to a second later (`linkwatch_urgent_event`, net/core/link_watch.c); namespaces that number
//! their own interfaces both begin at 2.

use crate::error::Error;
use crate::nsid::Nsid;
use crate::rtnl::Rtnl;
use futures_util::{StreamExt, TryStreamExt};
use netns::Namespace;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{
    BridgePortState, BridgeStpState, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVeth,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::neighbour_table::{
    NeighbourTableAttribute, NeighbourTableMessage, NeighbourTableParameter,
};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteMessage, RouteMetric, RouteScope, RouteType,
};
use rtnetlink::{
    LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use spec::facts::NeighbourFacts;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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
    pub(crate) name: &'a str,
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
pub(crate) fn veth(rtnl: &mut Rtnl, near: &End<'_>, far: &End<'_>) -> Result<(), Error> {
    let peer = describe(LinkUnspec::new_with_index(far.index), far).build();
    let message =
        describe(LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth), near)
            .index(near.index)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
    rtnl.ask(format_args!("making the veth pair {} - {}", near.name, far.name), |handle| {
        handle.link().add(message).execute()
    })
}

/// Makes a bridge that forwards at once and says nothing of its own, and takes it up.
pub(crate) fn bridge(rtnl: &mut Rtnl, name: &str, index: Index) -> Result<(), Error> {
    let message = LinkBridge::new(name)
        .index(index)
        .up()
        .stp_state(BridgeStpState::Disabled)
        .mcast_snooping(false)
        .build();
    rtnl.ask(format_args!("making the bridge {name}"), |handle| {
        handle.link().add(message).execute()
    })
}

/// Isolates a port of a bridge: nothing passes between isolated ports (`br_skb_isolated`,
/// net/bridge/br_private.h), whatever happens to their links.
pub(crate) fn isolate(rtnl: &mut Rtnl, port: Index, isolated: bool) -> Result<(), Error> {
    let message = LinkBridgePort::new(port).isolated(isolated).build();
    let doing = if isolated { "isolating" } else { "joining" };
    rtnl.ask(format_args!("{doing} port {port} of the switch"), |handle| {
        handle.link().set_port(message).execute()
    })
}

/// Lets a port of a bridge have only what is for one link-layer address, wherever it comes from: it
/// learns nothing, and nothing is flooded to it.
pub(crate) fn only_for(rtnl: &mut Rtnl, port: Index, mac: Mac) -> Result<(), Error> {
    let message = LinkBridgePort::new(port)
        .learning(false)
        .flood(false)
        .mcast_flood(false)
        .bcast_flood(false)
        .build();
    rtnl.ask(format_args!("keeping port {port} of the switch to itself"), |handle| {
        handle.link().set_port(message).execute()
    })?;
    // NUD_NOARP: it stays. A permanent one would be an address of the bridge's host itself.
    rtnl.ask(format_args!("telling the switch who is behind port {port}"), |handle| {
        let entry = handle.neighbours().add_bridge(port, &mac).state(NeighbourState::Noarp);
        entry.flags(NeighbourFlags::Controller).replace().execute()
    })
}

/// Takes an interface up or down.
pub(crate) fn set_up(rtnl: &mut Rtnl, index: Index, up: bool) -> Result<(), Error> {
    let link = LinkUnspec::new_with_index(index);
    let (link, direction) = if up { (link.up(), "up") } else { (link.down(), "down") };
    rtnl.ask(format_args!("taking interface {index} {direction}"), |handle| {
        handle.link().set(link.build()).execute()
    })
}

/// Adds an address. For IPv6, without duplicate address detection.
pub(crate) fn address(
    rtnl: &mut Rtnl,
    index: Index,
    address: IpAddr,
    prefix_len: u8,
) -> Result<(), Error> {
    rtnl.ask(format_args!("adding the address {address}/{prefix_len}"), |handle| {
        let mut request = handle.address().add(index, address, prefix_len);
        if address.is_ipv6() {
            request.message_mut().header.flags = AddressHeaderFlags::Nodad;
        }
        request.execute()
    })
}

/// Adds the default route.
pub(crate) fn default_route(rtnl: &mut Rtnl, index: Index, gateway: IpAddr) -> Result<(), Error> {
    let route = match gateway {
        IpAddr::V4(gateway) => {
            RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build()
        }
        IpAddr::V6(gateway) => {
            RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).output_interface(index).build()
        }
    };
    rtnl.ask(format_args!("adding the default route through {gateway}"), |handle| {
        handle.route().add(route).execute()
    })
}

/// Adds a route to one host with a smallest RTO that no socket can undercut: `RTAX_RTO_MIN`,
/// milliseconds, and locked (`tcp_rto_min`, net/ipv4/tcp_output.c).
pub(crate) fn route_with_rto_min(
    rtnl: &mut Rtnl,
    index: Index,
    host: IpAddr,
    gateway: Option<IpAddr>,
    rto_min: Duration,
) -> Result<(), Error> {
    let mut route = route_to(host);
    if gateway.is_none() {
        route.header.scope = RouteScope::Link;
    }
    route.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    route.attributes.push(RouteAttribute::Oif(index));
    route.attributes.push(RouteAttribute::Metrics(vec![
        RouteMetric::Lock(1 << RTAX_RTO_MIN),
        RouteMetric::RtoMin(rto_min.as_millis() as u32),
    ]));
    rtnl.ask(format_args!("adding the route to {host} with rto_min"), |handle| {
        handle.route().add(route).execute()
    })
}

/// The number of `RouteMetric::RtoMin` (include/uapi/linux/rtnetlink.h).
const RTAX_RTO_MIN: u16 = 13;

/// Adds or removes a route that swallows everything to one host, without an answer
/// (`RTN_BLACKHOLE`: net/ipv4/route.c `ip_error`, net/ipv6/route.c `dst_discard`).
pub(crate) fn swallow(rtnl: &mut Rtnl, host: IpAddr, swallow: bool) -> Result<(), Error> {
    let mut route = route_to(host);
    route.header.kind = RouteType::BlackHole;
    if swallow {
        rtnl.ask(format_args!("adding the blackhole route to {host}"), |handle| {
            handle.route().add(route).execute()
        })
    } else {
        rtnl.ask(format_args!("removing the blackhole route to {host}"), |handle| {
            handle.route().del(route).execute()
        })
    }
}

/// Pins a neighbour's link-layer address.
pub(crate) fn neighbour(
    rtnl: &mut Rtnl,
    index: Index,
    host: IpAddr,
    mac: Mac,
) -> Result<(), Error> {
    rtnl.ask(format_args!("pinning the neighbour {host}"), |handle| {
        handle.neighbours().add(index, host).link_layer_address(&mac).replace().execute()
    })
}

/// Forgets a neighbour; one that was not known is no error.
pub(crate) fn forget(rtnl: &mut Rtnl, index: Index, host: IpAddr) -> Result<(), Error> {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    let (family, destination) = match host {
        IpAddr::V4(host) => (AddressFamily::Inet, NeighbourAddress::Inet(host)),
        IpAddr::V6(host) => (AddressFamily::Inet6, NeighbourAddress::Inet6(host)),
    };
    message.header.family = family;
    message.attributes.push(NeighbourAttribute::Destination(destination));
    let forgotten = rtnl.ask(format_args!("forgetting the neighbour {host}"), |handle| {
        handle.neighbours().del(message).execute()
    });
    match forgotten {
        Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    }
}

/// What is known of a host's link-layer address on an interface, and how the entries of that
/// interface ask; `None` if there is no entry. Its time stamp is the caller's.
pub(crate) fn neighbour_facts(
    rtnl: &mut Rtnl,
    index: Index,
    host: IpAddr,
) -> Result<Option<NeighbourFacts>, Error> {
    let (family, destination) = match host {
        IpAddr::V4(host) => (AddressFamily::Inet, NeighbourAddress::Inet(host)),
        IpAddr::V6(host) => (AddressFamily::Inet6, NeighbourAddress::Inet6(host)),
    };
    let entries: Vec<NeighbourMessage> = rtnl
        .ask(format_args!("looking at the neighbour {host}"), |handle| {
            handle.neighbours().get().set_address_family(family).execute().try_collect()
        })?;
    let wanted = NeighbourAttribute::Destination(destination);
    let Some(entry) = entries
        .into_iter()
        .find(|entry| entry.header.ifindex == index && entry.attributes.contains(&wanted))
    else {
        return Ok(None);
    };
    let mut facts =
        NeighbourFacts { state: entry.header.state.into(), ..NeighbourFacts::default() };
    for attribute in &entry.attributes {
        if let NeighbourAttribute::CacheInfo(info) = attribute {
            facts.confirmed_ms = u64::from(info.confirmed) * CLOCK_MS;
            facts.updated_ms = u64::from(info.updated) * CLOCK_MS;
        }
    }
    let mut message = NeighbourTableMessage::default();
    message.header.family = family;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbourTable(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let tables: Vec<NetlinkMessage<RouteNetlinkMessage>> =
        rtnl.ask(format_args!("looking at the neighbour table"), |handle| {
            let mut handle = handle.clone();
            async move { Ok(handle.request(request)?.collect().await) }
        })?;
    for message in tables {
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbourTable(table)) =
            message.payload
        else {
            continue;
        };
        for attribute in &table.attributes {
            match attribute {
                NeighbourTableAttribute::Config(config) => {
                    // Unsigned there, and less than zero at first.
                    facts.drawn_ms = config.last_rand.cast_signed().into();
                }
                NeighbourTableAttribute::Parms(parms)
                    if parms.contains(&NeighbourTableParameter::Ifindex(index)) =>
                {
                    for parameter in parms {
                        take(&mut facts, parameter);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(Some(facts))
}

/// A tick of `USER_HZ`, which `nda_cacheinfo` counts in, milliseconds.
const CLOCK_MS: u64 = 10;

fn take(facts: &mut NeighbourFacts, parameter: &NeighbourTableParameter) {
    match parameter {
        NeighbourTableParameter::ReachableTime(ms) => facts.reachable_ms = *ms,
        NeighbourTableParameter::DelayProbeTime(ms) => facts.delay_ms = *ms,
        NeighbourTableParameter::RetransTime(ms) => facts.retrans_ms = *ms,
        NeighbourTableParameter::UcastProbes(count) => facts.direct_questions = *count,
        NeighbourTableParameter::McastProbes(count) => facts.questions_to_all = *count,
        _ => {}
    }
}

/// An interface as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    /// `IFF_UP`: it was set up.
    pub(crate) up: bool,
    /// `IFF_LOWER_UP`: it has a carrier.
    pub(crate) carrier: bool,
    /// `IFF_RUNNING`: the kernel has also dealt with having a carrier; frames pass.
    pub(crate) running: bool,
    /// For a port of a bridge: whether it forwards.
    pub(crate) forwarding: Option<bool>,
}

/// Looks at an interface; `None` if there is none of this number.
pub(crate) fn state(rtnl: &mut Rtnl, index: Index) -> Result<Option<State>, Error> {
    state_in(rtnl, None, index)
}

/// Looks at an interface in another namespace.
pub(crate) fn state_in(
    rtnl: &mut Rtnl,
    namespace: Option<Nsid>,
    index: Index,
) -> Result<Option<State>, Error> {
    let found = rtnl.ask(format_args!("looking at interface {index}"), |handle| {
        let mut request = handle.link().get().match_index(index);
        let there = namespace.map(|Nsid(number)| LinkAttribute::IfNetnsId(number));
        request.message_mut().attributes.extend(there);
        let mut answers = Box::pin(request.execute());
        async move { answers.try_next().await }
    });
    let link = match found {
        Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => None,
        found => found?,
    };
    Ok(link.map(|link| State {
        up: link.header.flags.contains(LinkFlags::Up),
        carrier: link.header.flags.contains(LinkFlags::LowerUp),
        running: link.header.flags.contains(LinkFlags::Running),
        forwarding: port_state(&link).map(|state| state == BridgePortState::Forwarding),
    }))
}

/// Whether an IPv6 address has become one that the host answers for: the kernel installs its
/// local route in a work queue, also without duplicate address detection.
pub(crate) fn is_local(rtnl: &mut Rtnl, address: IpAddr) -> Result<bool, Error> {
    let found = rtnl.ask(format_args!("looking up the route to {address}"), |handle| {
        let mut answers = Box::pin(handle.route().get(route_to(address)).execute());
        async move { answers.try_next().await }
    });
    match found {
        Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENETUNREACH) => {
            Ok(false)
        }
        found => Ok(found?.is_some_and(|route| route.header.kind == RouteType::Local)),
    }
}

/// Asks again and again until the answer is yes: for [`PATIENCE`] and a thousand times, lest a
/// machine that stood still in between pass for a kernel that did not answer.
pub(crate) fn wait_until(
    what: &str,
    yes: impl FnMut() -> Result<bool, Error>,
) -> Result<(), Error> {
    ask_until(what, Duration::from_millis(2), yes)
}

/// The same for what may take long, and where each question is in the way of others.
pub(crate) fn wait_for_long(
    what: &str,
    yes: impl FnMut() -> Result<bool, Error>,
) -> Result<(), Error> {
    ask_until(what, Duration::from_millis(20), yes)
}

fn ask_until(
    what: &str,
    longest: Duration,
    mut yes: impl FnMut() -> Result<bool, Error>,
) -> Result<(), Error> {
    if yes()? {
        return Ok(());
    }
    let began = Instant::now();
    let mut pause = Duration::from_micros(50);
    for asked in 1_u32.. {
        sleep(pause);
        pause = (pause * 2).min(longest);
        if yes()? {
            break;
        }
        if asked > 1000 && began.elapsed() > PATIENCE {
            return Err(Error::Late { what: what.to_owned(), waited: PATIENCE });
        }
    }
    Ok(())
}

/// An end's attributes.
fn describe<T>(link: LinkMessageBuilder<T>, end: &End<'_>) -> LinkMessageBuilder<T> {
    // One queue: the kernel would make one for each processor.
    let mut link = link
        .name(end.name)
        .append_extra_attribute(LinkAttribute::NumTxQueues(1))
        .append_extra_attribute(LinkAttribute::NumRxQueues(1));
    if let Some(mac) = end.mac {
        link = link.address(mac.to_vec());
    }
    if let Some(master) = end.master {
        link = link.controller(master);
    }
    if let Some(namespace) = end.namespace {
        link = link.setns_by_fd(namespace.as_raw_fd());
    }
    link
}

/// A route to one host.
fn route_to(host: IpAddr) -> RouteMessage {
    match host {
        IpAddr::V4(host) => {
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(host, 32).build()
        }
        IpAddr::V6(host) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(host, 128).build()
        }
    }
}

/// What a bridge lets one of its ports do.
fn port_state(link: &LinkMessage) -> Option<BridgePortState> {
    let infos = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    let port = infos.iter().find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => Some(port),
        _ => None,
    })?;
    port.iter().find_map(|attribute| match attribute {
        InfoBridgePort::State(state) => Some(*state),
        _ => None,
    })
}
