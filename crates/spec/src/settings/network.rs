//! The network: how hosts are joined, and the path between them.

use super::Setting;
use super::value::{choose, time, whole_millis};
use crate::duration;
use std::time::Duration;

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "topology",
        about: "How client and server are joined: by a switch, by a router between two subnets, by one cable, or by a switch with a third host, on which a program is in the middle.",
        default: Some("switch"),
        example: "router",
        accepts: "`switch`, `router`, `direct` or `proxy`",
        set: |p, text| choose(&mut p.topology, text),
        get: |p| Some(p.topology.to_string()),
    },
    Setting {
        key: "family",
        about: "The address family.",
        default: Some("ipv4"),
        example: "ipv6",
        accepts: "`ipv4` or `ipv6`",
        set: |p, text| choose(&mut p.family, text),
        get: |p| Some(p.family.to_string()),
    },
    Setting {
        key: "neighbour",
        about: "How hosts know each other's link-layer addresses: entries that never expire, or ARP and neighbour discovery.",
        default: Some("permanent"),
        example: "learned",
        accepts: "`permanent` or `learned`",
        set: |p, text| choose(&mut p.neighbour, text),
        get: |p| Some(p.neighbour.to_string()),
    },
    Setting {
        key: "path.rtt",
        about: "Round-trip time added to the path, half of it each way.",
        default: Some("0s"),
        example: "100ms",
        accepts: "a duration from `0s` to `10s`",
        set: |p, text| time(text, Duration::ZERO, Duration::from_secs(10)).map(|t| p.path.rtt = t),
        get: |p| Some(duration::show(p.path.rtt)),
    },
    Setting {
        key: "path.rto_min",
        about: "The smallest RTO on the client's route (`ip route … rto_min`).",
        default: Some("off"),
        example: "50ms",
        accepts: "whole milliseconds from `1ms` to `2m`, or `off`",
        set: |p, text| whole_millis(text, 1, 120_000).map(|t| p.path.rto_min = t),
        get: |p| p.path.rto_min.map(duration::show),
    },
];
