//! Which connection of a proxy to its server is for which of a client's.

use crate::verdict::FlowVerdict;
use spec::Leg;
use std::collections::BTreeMap;
use timeline::{Flow, FlowId};

/// Says of each connection of a proxy to which it belongs. `flows` are all, each with when its SYN was seen.
pub(crate) fn pair(judged: &mut [FlowVerdict], flows: &[(FlowId, Flow, u64)]) {
    let of_proxy = flows.iter().filter_map(|(id, flow, at_ns)| match flow.leg {
        Leg::Downstream => Some(Opened { id: *id, at_ns: *at_ns, is_clients: true }),
        Leg::Upstream => Some(Opened { id: *id, at_ns: *at_ns, is_clients: false }),
        Leg::Whole | Leg::Past => None,
    });
    let mut pairings = pairs(of_proxy.collect());
    for flow in judged {
        match pairings.remove(&flow.id) {
            Some(Pairing::With(other)) => flow.paired_with = Some(other),
            Some(Pairing::OneOf(others)) => flow.why_unpaired = Some(why_unpaired(&others)),
            Some(Pairing::NoneSince(before)) => flow.why_unpaired = Some(why_none(&before)),
            None => {}
        }
    }
}

fn why_unpaired(others: &[FlowId]) -> String {
    match others {
        [FlowId(only)] => {
            format!("flow {only} may belong to another: several connections had none yet")
        }
        _ => format!("it is unknown to which of the flows {} it belongs", listed(others)),
    }
}

fn why_none(before: &[FlowId]) -> String {
    let none = "the proxy has opened no connection for it";
    match before {
        [] => none.into(),
        [FlowId(only)] => format!("{none}: it may go over flow {only}, which was there before"),
        _ => {
            format!(
                "{none}: it may go over one of the flows {}, which were there before",
                listed(before)
            )
        }
    }
}

fn listed(flows: &[FlowId]) -> String {
    flows.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(", ")
}

/// A connection of a proxy.
#[derive(Debug, Clone, Copy)]
struct Opened {
    id: FlowId,
    /// When its SYN was seen.
    at_ns: u64,
    /// Whether it is a client's, or the proxy's own to the server.
    is_clients: bool,
}

/// What a connection on one side of a proxy belongs to on the other.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pairing {
    With(FlowId),
    /// One of several that were open.
    OneOf(Vec<FlowId>),
    /// The proxy has opened none since. What it had opened before.
    NoneSince(Vec<FlowId>),
}

/// Pairs them by time, which is all that shows: a proxy connects to the server once one of the client's
/// connections has come that has none. Where several had come, nothing says for which it is; nor where
/// one goes over a connection that the proxy had before.
fn pairs(mut opened: Vec<Opened>) -> BTreeMap<FlowId, Pairing> {
    opened.sort_by_key(|one| (one.at_ns, one.id));
    let of_proxy =
        opened.iter().filter(|one| !one.is_clients).map(|one| one.id).collect::<Vec<_>>();
    let mut pairings = BTreeMap::new();
    // The client's that may have none yet, and the proxy's that are for one of them.
    let (mut waiting, mut unclear) = (Vec::new(), Vec::new());
    for Opened { id, is_clients, .. } in opened {
        match (is_clients, &waiting[..]) {
            (true, _) => waiting.push(id),
            (false, []) => {}
            (false, [only]) if unclear.is_empty() => {
                pairings.insert(*only, Pairing::With(id));
                pairings.insert(id, Pairing::With(*only));
                waiting.clear();
            }
            (false, several) => {
                pairings.insert(id, Pairing::OneOf(several.to_vec()));
                unclear.push(id);
            }
        }
        if unclear.len() == waiting.len() {
            leave_open(&mut pairings, &mut waiting, &mut unclear);
        }
    }
    if unclear.is_empty() {
        // What waits at the end has come after everything that the proxy has opened.
        pairings.extend(waiting.into_iter().map(|id| (id, Pairing::NoneSince(of_proxy.clone()))));
    } else {
        leave_open(&mut pairings, &mut waiting, &mut unclear);
    }
    pairings
}

fn leave_open(
    pairings: &mut BTreeMap<FlowId, Pairing>,
    waiting: &mut Vec<FlowId>,
    unclear: &mut Vec<FlowId>,
) {
    for id in waiting.drain(..) {
        pairings.insert(id, Pairing::OneOf(unclear.clone()));
    }
    unclear.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections in order, `c` a client's and `p` the proxy's, from 0.
    fn paired(order: &str) -> BTreeMap<FlowId, Pairing> {
        let opened = order.chars().zip(0_u32..).map(|(side, number)| Opened {
            id: FlowId(number),
            at_ns: u64::from(number),
            is_clients: side == 'c',
        });
        pairs(opened.collect())
    }

    fn one_of(ids: &[u32]) -> Pairing {
        Pairing::OneOf(ids.iter().copied().map(FlowId).collect())
    }

    #[test]
    fn one_that_waits_gets_the_next() {
        let pairs = paired("pcpcpp");
        let with = |id: u32| pairs.get(&FlowId(id)).cloned();
        assert_eq!(
            (with(1), with(2)),
            (Some(Pairing::With(FlowId(2))), Some(Pairing::With(FlowId(1))))
        );
        assert_eq!(with(4), Some(Pairing::With(FlowId(3))));
        assert_eq!((with(0), with(5)), (None, None), "the proxy's own checks belong to nobody");
    }

    #[test]
    fn of_two_that_wait_nobody_knows_which() {
        let pairs = paired("ccppcp");
        assert_eq!(pairs[&FlowId(0)], one_of(&[2, 3]));
        assert_eq!(pairs[&FlowId(3)], one_of(&[0, 1]));
        assert_eq!(pairs[&FlowId(4)], Pairing::With(FlowId(5)), "both have got one");
    }

    /// A pool: what went over a connection that the proxy had may still wait.
    #[test]
    fn one_that_the_proxy_opened_nothing_for_makes_the_next_unclear() {
        let pairs = paired("cpccp");
        assert_eq!(pairs[&FlowId(0)], Pairing::With(FlowId(1)));
        assert_eq!(pairs[&FlowId(4)], one_of(&[2, 3]));
        assert_eq!(pairs[&FlowId(2)], one_of(&[4]));
    }

    /// A pool again: the second client's goes over the connection that the first one's was opened for.
    #[test]
    fn one_that_the_proxy_opened_nothing_for_may_go_over_what_there_was() {
        let none_since =
            |ids: &[u32]| Some(Pairing::NoneSince(ids.iter().copied().map(FlowId).collect()));
        let found = |order, id| paired(order).get(&FlowId(id)).cloned();
        assert_eq!(found("cpcc", 0), Some(Pairing::With(FlowId(1))));
        assert_eq!((found("cpcc", 2), found("cpcc", 3)), (none_since(&[1]), none_since(&[1])));
        assert_eq!(found("c", 0), none_since(&[]));
        assert!(why_none(&[FlowId(1)]).contains("over flow 1, which"));
        assert!(why_none(&[FlowId(1), FlowId(3)]).contains("the flows 1, 3, which"));
    }
}
