//! Faults that follow one another, as far as each leaves behind a connection of which everything is known:
//! a path that goes away without a word, comes back and goes away again, and what comes last.

use crate::conclude::{lives_on, unknown};
use crate::hop::Hop;
use crate::kernel::Kernel;
use crate::laboratory::{SLOP, nanos};
use crate::prediction::{Prediction, Window};
use crate::scene::HopKind;
use crate::world::{ANSWER_IS_OUT, Away, Healed, Sequence, WayBack};
use crate::{black_hole, crash, dead_path, orphan, scripted, sieved, way};
use spec::{
    Direction, Drops, Facts, FaultKind, Neighbour, Parameters, Program, Reject, Traffic, duration,
};
use std::time::Duration;

/// What is predicted if all faults come, from what is predicted of the first alone.
pub(crate) fn predict(parameters: &Parameters, facts: &Facts, first: Prediction) -> Prediction {
    let mut prediction = first;
    let called = parameters.script().map_or(Duration::ZERO, |script| script.takes());
    for (index, next) in parameters.further.iter().enumerate() {
        // Times count from a call, which the program may make late.
        let is_over =
            |window: &Window| window.span.is_some_and(|(_, to)| to + called + SLOP < next.after);
        if prediction.unknown.is_some() || prediction.windows.iter().all(is_over) {
            break;
        }
        let place = index + 1;
        let after: Duration = parameters.further[..place].iter().map(|fault| fault.after).sum();
        let after = duration::show(after);
        prediction = up_to(parameters, facts, place).unwrap_or_else(|reason| {
            let why = format!("`{}` comes {after} after the first fault: {reason}", next.kind);
            unknown(parameters, why)
        });
        if prediction.unknown.is_none() {
            let why = &prediction.why;
            prediction.why = format!(
                "with fault {} (`{}`), {after} after the first: {why}",
                place + 1,
                next.kind
            );
        }
    }
    prediction
}

/// What is predicted if the faults to the one of this place come, which is not the first.
fn up_to(parameters: &Parameters, facts: &Facts, place: usize) -> Result<Prediction, String> {
    if let Some(reason) = not_modelled(parameters, facts) {
        return Err(reason.into());
    }
    let own = parameters.with_fault(place);
    let sequence = sequence(parameters, facts, place)?;
    let sequences = orphan::closed(&own, facts, sequence)?;
    let mut through = scripted::predict_through(parameters, facts, None, &sequences);
    through.windows.iter_mut().for_each(orphan::of_fin);
    if let Some(reason) = through.unknown {
        return Err(reason);
    }
    Ok(match own.fault.kind {
        FaultKind::ProcessCrash | FaultKind::ProcessFreeze
            if own.fault.still.is_none() && own.client_says_goodbye() =>
        {
            return Err(orphan::BOTH_END.into());
        }
        FaultKind::ProcessCrash if own.fault.still.is_none() => crash::predict(&own, facts),
        FaultKind::ProcessFreeze if through.hull().is_none() => lives_on(&own, through.why),
        _ => through,
    })
}

fn not_modelled(parameters: &Parameters, facts: &Facts) -> Option<&'static str> {
    let Parameters { client, server, .. } = parameters;
    if client.keepalive.enabled && !server.reads && facts.jiffies.is_none() {
        return Some(
            "when unread data were acknowledged, from which keepalive counts, only a run can tell",
        );
    }
    if [client.program, server.program].iter().any(|program| *program != Program::Halfopen) {
        return Some("what a program does between faults is its own");
    }
    if client.fills_window || server.fills_window {
        return Some("what passes a closed window between faults is not modelled");
    }
    let acknowledged = facts.tcp.as_ref().is_some_and(|tcp| tcp.acknowledged == Some(true));
    let takes = parameters.path.rtt + ACKNOWLEDGED;
    if server.reads && !acknowledged && parameters.fault.after < takes {
        return Some(ANSWER_IS_OUT);
    }
    None
}

/// What the faults to the one of this place do to the path.
fn sequence(parameters: &Parameters, facts: &Facts, place: usize) -> Result<Sequence, String> {
    let kernel = Kernel::new(parameters, facts);
    let is_learned = parameters.neighbour == Neighbour::Learned;
    let believed = || (nanos(parameters.fault.after), nanos(dead_path::NEIGHBOUR_LIVES));
    let mut outages = Vec::new();
    let mut from_ns = 0;
    for index in 0..=place {
        let own = parameters.with_fault(index);
        if index > 0 {
            from_ns += nanos(own.fault.after);
        }
        let next = (index < place).then(|| parameters.with_fault(index + 1).fault);
        let next = next.filter(|next| next.still.is_none()).map(|next| next.after);
        let lasts = own.fault_duration().into_iter().chain(next).min();
        match met(&own, facts, index == place)? {
            Meets::Nothing => {}
            Meets::Losses => outages.push(drops(&kernel, &own, from_ns, outages.last())),
            Meets::Outage => {
                let rtt_ns = nanos(parameters.path.rtt);
                if way::exposed_ns(&own, rtt_ns) != way::exposed_ns(parameters, rtt_ns) {
                    return Err(FROM_ELSEWHERE.into());
                }
                let until_ns = lasts.map(|lasts| from_ns.saturating_add(nanos(lasts)));
                outages.extend(outage(&kernel, &own, facts, (from_ns, until_ns))?);
            }
        }
    }
    let believed_ns = is_learned.then(believed);
    Ok(Sequence { outages, last_ns: from_ns, fin_ns: None, believed_ns })
}

/// What packets meet.
enum Meets {
    /// Nothing.
    Nothing,
    /// A path that drops some of them.
    Losses,
    /// One that drops all.
    Outage,
}

fn met(own: &Parameters, facts: &Facts, is_last: bool) -> Result<Meets, String> {
    match own.fault.kind {
        FaultKind::ProcessCrash | FaultKind::ProcessFreeze if is_last => Ok(Meets::Nothing),
        // Nobody asks the program anything.
        FaultKind::ProcessFreeze if own.client.traffic == Traffic::Idle => Ok(Meets::Nothing),
        FaultKind::Mtu if black_hole::lets_all_pass(own, facts) => Ok(Meets::Nothing),
        FaultKind::PowerOff | FaultKind::Reboot | FaultKind::Takeover if is_last => {
            Ok(Meets::Outage)
        }
        FaultKind::Flap | FaultKind::Reject => Ok(Meets::Outage),
        FaultKind::Blackhole => match own.fault.sieve().map(|sieve| sieve.drops) {
            None => Ok(Meets::Outage),
            // Its answers come back, or nothing comes to it.
            Some(Drops::Next(_)) if own.fault.direction != Direction::ToClient => {
                sieved::not_known(own).map_or(Ok(Meets::Losses), |why| Err(why.into()))
            }
            Some(_) => {
                Err("what passes a path that drops some packets is not modelled together with other faults".into())
            }
        },
        kind => Err(format!("what `{kind}` does together with other faults is not modelled")),
    }
}

/// A path that drops some packets; it is as it was `before` otherwise.
fn drops(kernel: &Kernel, own: &Parameters, from_ns: u64, before: Option<&Away>) -> Away {
    let healed = before.and_then(|away| away.healed).map(|healed| healed.from(from_ns));
    Away { from_ns, hop: Hop::Silent, healed, losses: way::losses(kernel, own, from_ns) }
}

/// A path that drops everything, or rejects it; and what comes after, if a router no longer rejects.
fn outage(
    kernel: &Kernel,
    own: &Parameters,
    facts: &Facts,
    (from_ns, until_ns): (u64, Option<u64>),
) -> Result<Vec<Away>, String> {
    if let Some(reason) = dead_path::announced_to_who_asks(own) {
        return Err(reason.into());
    }
    let rejects = own.fault.kind == FaultKind::Reject;
    let resets = rejects && own.fault.reject == Reject::TcpReset;
    let hop = match &dead_path::hops(kernel, own, facts)?[..] {
        [HopKind::Fixed(hop)] if !resets => hop.clone(),
        // An entry that was learned is believed, for as long as the world says.
        _ => Hop::Silent,
    };
    let mut as_flap = own.clone();
    if matches!(own.fault.kind, FaultKind::Blackhole | FaultKind::Reject) {
        // It is healed as a link that comes back.
        as_flap.fault.kind = FaultKind::Flap;
    }
    let back = until_ns.and_then(|at_ns| dead_path::healed(&as_flap, facts, at_ns));
    let back = if dead_path::is_cut(own) {
        back
    } else {
        back.map(|back| Healed { back: WayBack::Known, ..back })
    };
    let away = |from_ns, hop, healed| Away { from_ns, hop, healed, losses: None };
    if !rejects {
        return Ok(vec![away(from_ns, hop, back)]);
    }
    let rejected = away(from_ns, hop, dead_path::healed(own, facts, from_ns));
    let after = back.map(|back| away(back.at_ns, Hop::Silent, Some(back)));
    Ok(std::iter::once(rejected).chain(after).collect())
}

/// What a settled connection's last acknowledgement is delayed by (`TCP_DELACK_MIN`, 40 ms), and what a busy
/// machine takes.
const ACKNOWLEDGED: Duration = Duration::from_millis(100);
const FROM_ELSEWHERE: &str = "on a path that takes its time, what is on its way meets one of the faults at one end of \
                              it, and another at the other";
