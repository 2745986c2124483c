//! The server's host or the path to it is gone: only the client's own timers can tell, or whatever
//! answers in the server's place.

use crate::entry::{self, BELIEVED_SECS, Looked};
use crate::hop::{self, Hop, Icmp, Limit};
use crate::kernel::Kernel;
use crate::laboratory::{SLOP_NS, nanos};
use crate::rto;
use crate::scene::{Confirms, HopKind, LIVES_APART_SECS};
use crate::tick::JiffyPhase;
use crate::wheel::Context;
use crate::world::{Answer, Healed, WayBack};
use spec::effect::{Cable, HostFate, PathFate};
use spec::{Errno, Facts, Family, FaultKind, Neighbour, Parameters, Reject, Topology, Traffic};
use std::time::Duration;

/// Why the connection cannot be predicted that has hardly begun.
pub(crate) fn unsettled(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> Option<String> {
    let tcp = facts.tcp.as_ref()?;
    let fresh = tcp.rto_us >= FRESH_RTO_US
        && parameters.path.rtt < Duration::from_millis(300)
        // What an earlier fault has lost was sent again, and gave a long round trip.
        && parameters.further.is_empty()
        && kernel.rto_min < kernel.hz.from_msecs(900);
    fresh.then(|| {
        format!(
            "the RTO before the fault is {} ms: the connection has not settled",
            tcp.rto_us / 1000
        )
    })
}

/// An RTO from this on, on a short path, is the initial one: `TCP_TIMEOUT_INIT`.
const FRESH_RTO_US: u32 = 990_000;

/// What answers after the fault, from `at_ns` on; `None`: nothing ever does.
pub(crate) fn healed(parameters: &Parameters, facts: &Facts, at_ns: u64) -> Option<Healed> {
    let fault = &parameters.fault;
    let least_ns = nanos(parameters.path.rtt);
    let moved = moves(parameters);
    let healed = Healed {
        at_ns,
        with: Answer::Reset,
        moved,
        back: way_back(parameters),
        round_trip_ns: (least_ns, round_trip_ns(parameters, facts) - least_ns),
    };
    match fault.kind {
        FaultKind::Flap => Some(Healed { with: Answer::Ack, ..healed }),
        FaultKind::Reboot | FaultKind::Takeover => {
            let known = !moved || parameters.neighbour == Neighbour::Learned;
            // Until the announcement comes, packets go to the address before.
            let healed = if moved && fault.announces() {
                Healed { moved: false, ..healed.from(at_ns.saturating_add(least_ns / 2)) }
            } else {
                healed
            };
            known.then_some(healed)
        }
        // The router is next door: what delays the path lies behind it.
        FaultKind::Reject if fault.reject == Reject::TcpReset => {
            Some(Healed { round_trip_ns: (0, 0), back: WayBack::Known, ..healed })
        }
        FaultKind::None
        | FaultKind::ProcessCrash
        | FaultKind::ProcessFreeze
        | FaultKind::PowerOff
        | FaultKind::Blackhole
        | FaultKind::Mtu
        | FaultKind::Reject
        | FaultKind::Forget
        | FaultKind::Unplug => None,
    }
}

/// Whether the fault takes the server's cable away, so that a router has to ask for it.
pub(crate) fn is_cut(parameters: &Parameters) -> bool {
    match parameters.fault.effect().cable {
        Cable::FarEndDown => true,
        Cable::Up | Cable::CarrierLost => false,
    }
}

/// Whether the host comes back with another link-layer address than the one that its sender still
/// has. A router has forgotten the old one, unless it learned it.
pub(crate) fn moves(parameters: &Parameters) -> bool {
    let forgotten =
        parameters.topology == Topology::Router && parameters.neighbour == Neighbour::Permanent;
    parameters.fault.moves() && !forgotten
}

/// Why it cannot be said what becomes of what waits for a link-layer address when the host that has
/// taken it over says so.
pub(crate) fn announced_to_who_asks(parameters: &Parameters) -> Option<&'static str> {
    let Parameters { client, fault, .. } = parameters;
    let lasts = fault.after + parameters.fault_duration().unwrap_or_default();
    let (first_probe, ..) = parameters.keepalive_in_force();
    let may_ask = match (parameters.neighbour, parameters.topology) {
        (Neighbour::Learned, _) => lasts >= NEIGHBOUR_LIVES || client.traffic == Traffic::Connect,
        // It has forgotten the server, and asks for it when something comes.
        (Neighbour::Permanent, Topology::Router) => {
            let probes = client.keepalive.enabled && first_probe <= lasts + COMES_BACK;
            client.traffic != Traffic::Idle || probes || fault.after < ACKNOWLEDGED
        }
        (Neighbour::Permanent, Topology::Switch | Topology::Direct | Topology::Proxy) => false,
    };
    (fault.announces() && may_ask).then_some(
        "when the other host says that it has the address, somebody may be asking for it: what waits \
         for the answer then goes at once, which is not modelled",
    )
}

/// What another host takes to come at most, beside its time.
const COMES_BACK: Duration = Duration::from_secs(1);
/// What the acknowledgement of the last exchange is delayed by at most.
const ACKNOWLEDGED: Duration = Duration::from_millis(60);

/// Whether the server's host knows the way back: one that is new, or that has lost its carrier
/// (`neigh_carrier_down`, net/core/neighbour.c), has learned nothing.
pub(crate) fn way_back(parameters: &Parameters) -> WayBack {
    let forgot = match parameters.fault.effect().host {
        HostFate::Replaced => true,
        HostFate::Stays => is_cut(parameters),
        HostFate::Destroyed => false,
    };
    let fresh = parameters.client.traffic == Traffic::Connect || forgot;
    if parameters.neighbour == Neighbour::Permanent || !fresh {
        return WayBack::Known;
    }
    // A router asks from its link-local address (`ndisc_solicit`, net/ipv6/ndisc.c), which is not
    // the one that the server's route leads to.
    if parameters.topology == Topology::Router && parameters.family == Family::Ipv6 {
        WayBack::AlwaysAsks
    } else {
        WayBack::Asks
    }
}

/// Where the client's segments end.
pub(crate) fn hops(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
) -> Result<Vec<HopKind>, String> {
    let fault = &parameters.fault;
    let ipv4 = parameters.family == Family::Ipv4;
    // `icmp_ratelimit` of the router: a second, the default.
    let limit = Limit::of_router(kernel, parameters.family);
    let unreachable = Icmp { error: Errno::EHOSTUNREACH, reverts: ipv4 };
    let cut = is_cut(parameters);
    if fault.effect().path == PathFate::Rejected {
        let icmp = icmp_of(parameters.family, fault.reject);
        return Ok(vec![HopKind::Fixed(Hop::Rejects(limit, icmp))]);
    }
    let router = parameters.topology == Topology::Router;
    match (parameters.neighbour, router) {
        (Neighbour::Permanent, false) => return Ok(vec![HopKind::Fixed(Hop::Silent)]),
        (Neighbour::Permanent | Neighbour::Learned, true) if !cut => {
            return Ok(vec![HopKind::Fixed(Hop::Silent)]);
        }
        // The router no longer knows the server's link-layer address, and asks in vain.
        (Neighbour::Permanent, true) => {
            let hop = Hop::Asks(hop::Neighbour::unknown(false), limit, unreachable);
            return Ok(vec![HopKind::Fixed(hop)]);
        }
        // Without a carrier the client's entry is thrown away (`neigh_carrier_down`).
        (Neighbour::Learned, false) if fault.effect().cable == Cable::CarrierLost => {
            if let Some(reason) = own_settings(parameters, facts, None) {
                return Err(reason);
            }
            let hop = Hop::Asks(hop::Neighbour::unknown(true), Limit::none(), unreachable);
            return Ok(vec![HopKind::Fixed(hop)]);
        }
        (Neighbour::Learned, true | false) => {}
    }
    // Whoever sends to the server has learned its address when the client connected, and believes it
    // still.
    let entry = Looked::at(kernel, facts);
    if !router && let Some(reason) = own_settings(parameters, facts, entry) {
        return Err(reason);
    }
    let (local, icmp) = (!router, unreachable);
    let limit = if router { limit } else { Limit::none() };
    let hop = if let Some(entry) = entry {
        let confirms = confirms(kernel, parameters, facts, entry);
        HopKind::Looked { entry, local, confirms, limit, icmp }
    } else {
        let age = if router { fault.after } else { Duration::ZERO };
        HopKind::Believed { local, jiffies: believed(kernel, age), limit, icmp }
    };
    Ok(vec![hop])
}

/// Why settings of the client's neighbour table make the life of an entry unknown, if they do.
pub(crate) fn own_settings(
    parameters: &Parameters,
    facts: &Facts,
    entry: Option<Looked>,
) -> Option<String> {
    let own = || entry::own_settings(parameters, facts);
    own().next()?;
    let followed = entry.is_some_and(|entry| own().all(entry::is_looked_at) && entry.is_plain());
    (!followed).then(|| "a neighbour table with settings of its own is not modelled".into())
}

/// When the entry was, or is going to be, confirmed: an acknowledgement of data confirms it with the
/// next segment that the client sends (`sk_dst_confirm`, `sock_confirm_neigh`), which is a delayed
/// acknowledgement or the first write. The mark stays on a segment that crosses a veth pair, so that
/// a router in the same kernel takes its entry for confirmed, too.
fn confirms(kernel: &Kernel, parameters: &Parameters, facts: &Facts, entry: Looked) -> Confirms {
    let seen = Confirms { seen: true, by_write: false, delayed: None };
    let (Some(tcp), Some(clock)) = (&facts.tcp, facts.jiffies) else { return seen };
    let Some(sampled_ns) = JiffyPhase::new(kernel.hz, clock).of(tcp.sampled_at_ns) else {
        return seen;
    };
    let sampled = sampled_ns / kernel.hz.tick_ns();
    // The answer to a keepalive probe acknowledges nothing, and confirms nothing (`tcp_ack`); the
    // last acknowledgement that did came with the server's last bytes.
    let probed = parameters.server.reads && parameters.client.keepalive.enabled;
    let ago = if probed { tcp.last_data_recv_ms } else { tcp.last_ack_recv_ms };
    let ago = kernel.hz.whole_in_msecs(ago.into());
    let received = sampled.saturating_sub(ago);
    let confirmed = entry.confirmed(kernel);
    let since = confirmed.iter().any(|at| *at >= received);
    let before = confirmed.iter().any(|at| *at <= received);
    let delayed =
        kernel.wheel.fires_at(received, rto::delayed_ack(kernel.hz, kernel.rto_min), Context::Call);
    // Unread bytes are acknowledged, and nothing comes back that the client would acknowledge.
    let reads = parameters.server.reads;
    let passed_on = reads && sampled > delayed + kernel.hz.from_msecs(100);
    Confirms {
        seen: since && (reads || !before),
        by_write: before && !(passed_on && since),
        delayed: (reads && delayed >= sampled).then_some(delayed),
    }
}

/// For how many jiffies after the first write, which confirms it with the last acknowledgement, a
/// neighbour entry is believed at least that was learned or confirmed `age` before, and for how many
/// more at most.
fn believed(kernel: &Kernel, age: Duration) -> (u64, u64) {
    let seconds = |secs: u64| kernel.hz.from_secs(secs);
    let least = seconds(BELIEVED_SECS.0.saturating_sub(age.as_secs()).max(1));
    let most = seconds(BELIEVED_SECS.1) + kernel.wheel.slot(seconds(BELIEVED_SECS.1));
    // No two retransmissions fit into what is rounded up here, once they are so far apart.
    (least, (most - least).next_multiple_of(seconds(LIVES_APART_SECS).max(1)))
}

/// The ICMP error by which a router rejects, and what it means to a connection: `icmp_err_convert`
/// (net/ipv4/icmp.c), `tab_unreach` and `icmpv6_err_convert` (net/ipv6/icmp.c).
pub(crate) fn icmp_of(family: Family, reject: Reject) -> Icmp {
    let (error, reverts) = match (family, reject) {
        (Family::Ipv4, Reject::HostUnreachable) => (Errno::EHOSTUNREACH, true),
        (_, Reject::NetUnreachable) => (Errno::ENETUNREACH, true),
        (_, Reject::PortUnreachable) => (Errno::ECONNREFUSED, false),
        (Family::Ipv6, Reject::AdminProhibited) => (Errno::EACCES, false),
        (Family::Ipv6, Reject::HostUnreachable)
        | (Family::Ipv4, Reject::AdminProhibited)
        | (_, Reject::TcpReset) => (Errno::EHOSTUNREACH, false),
    };
    Icmp { error, reverts }
}

pub(crate) fn round_trip_ns(parameters: &Parameters, facts: &Facts) -> u64 {
    let measured = facts.tcp.as_ref().map_or(0, |tcp| u64::from(tcp.srtt_us) * 1_000);
    measured.max(nanos(parameters.path.rtt))
}

/// A round trip of a settled connection, nanoseconds, at least, and how much longer at most.
pub(crate) fn round_trip_within_ns(parameters: &Parameters, facts: &Facts) -> (u64, u64) {
    let most_ns = round_trip_ns(parameters, facts);
    let longer_ns = most_ns.saturating_sub(nanos(parameters.path.rtt)).min(SLOP_NS);
    (most_ns - longer_ns, longer_ns)
}

/// A neighbour entry is believed for half of `base_reachable_time` (30 s) at least, and a probe may
/// still pass for `delay_first_probe_time` (5 s) and three questions after that.
pub(crate) const NEIGHBOUR_LIVES: Duration = Duration::from_secs(15);
