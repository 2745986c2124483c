//! The names Linux knows under `net.ipv4`, and the values it accepts for those that have limits.
//!
//! Source: net/ipv4/sysctl_net_ipv4.c, net/ipv4/devinet.c, net/ipv4/route.c,
//! net/core/neighbour.c and net/ipv4/ip_fragment.c of Linux 6.18, with names of other versions kept
//! (a name that Linux has but the running kernel lacks makes a trial `skipped`, not an error).

use std::collections::BTreeMap;

/// Sysctls by their name below `net.ipv4`, as `tcp_retries2` or `conf.all.rp_filter`.
pub type Sysctls = BTreeMap<String, String>;

/// Names with the range of the one whole number they take.
const NUMBERS: &[(&str, i64, i64)] = &[
    ("tcp_keepalive_time", 1, 21_474_836), // proc_dointvec_jiffies: INT_MAX / 100
    ("tcp_keepalive_intvl", 1, 21_474_836),
    ("tcp_keepalive_probes", 0, 255),
    ("tcp_syn_retries", 1, 127),
    ("tcp_synack_retries", 0, 255),
    ("tcp_syn_linear_timeouts", 0, 127),
    ("tcp_retries1", 0, 255),
    ("tcp_retries2", 0, 255),
    ("tcp_orphan_retries", 0, 255),
    ("tcp_fin_timeout", 0, 21_474_836),
    ("tcp_rto_min_us", 1, 2_147_483_647),
    ("tcp_rto_max_ms", 1_000, 120_000),
    ("tcp_early_retrans", 0, 4),
    ("tcp_recovery", 0, 255),
    ("tcp_thin_linear_timeouts", 0, 255),
    ("tcp_frto", 0, 255),
    ("tcp_sack", 0, 255),
    ("tcp_dsack", 0, 255),
    ("tcp_timestamps", 0, 255),
    ("tcp_window_scaling", 0, 255),
    ("tcp_ecn", 0, 5),
    ("tcp_ecn_fallback", 0, 1),
    ("tcp_slow_start_after_idle", 0, 255),
    ("tcp_syncookies", 0, 255),
    ("tcp_tw_reuse", 0, 2),
    ("tcp_autocorking", 0, 1),
    ("tcp_app_win", 0, 31),
    ("tcp_adv_win_scale", -31, 31),
    ("tcp_pingpong_thresh", 1, 255),
    ("tcp_shrink_window", 0, 1),
    ("tcp_plb_enabled", 0, 1),
    ("tcp_migrate_req", 0, 1),
    ("tcp_min_rtt_wlen", 0, 86_400),
    ("tcp_abort_on_overflow", 0, 255),
    ("tcp_rfc1337", 0, 255),
    ("tcp_no_metrics_save", 0, 255),
    ("tcp_mtu_probing", 0, 255),
    ("ip_default_ttl", 1, 255),
    ("ip_forward", 0, 2_147_483_647),
    ("icmp_echo_ignore_all", 0, 1),
    ("icmp_echo_ignore_broadcasts", 0, 1),
    ("icmp_msgs_per_sec", 0, 2_147_483_647),
    ("icmp_msgs_burst", 0, 2_147_483_647),
];

/// Other names; the kernel itself judges their values.
const OTHERS: &[&str] = &[
    "fib_multipath_hash_fields",
    "fib_multipath_hash_policy",
    "fib_multipath_hash_seed",
    "fib_multipath_use_neigh",
    "fib_notify_on_flag_change",
    "fwmark_reflect",
    "icmp_echo_enable_probe",
    "icmp_errors_use_inbound_ifaddr",
    "icmp_ignore_bogus_error_responses",
    "icmp_ratelimit",
    "icmp_ratemask",
    "igmp_link_local_mcast_reports",
    "igmp_max_memberships",
    "igmp_max_msf",
    "igmp_qrv",
    "ip_autobind_reuse",
    "ip_dynaddr",
    "ip_early_demux",
    "ip_forward_update_priority",
    "ip_forward_use_pmtu",
    "ip_local_port_range",
    "ip_local_reserved_ports",
    "ip_no_pmtu_disc",
    "ip_nonlocal_bind",
    "ip_unprivileged_port_start",
    "ipfrag_high_thresh",
    "ipfrag_low_thresh",
    "ipfrag_max_dist",
    "ipfrag_time",
    "nexthop_compat_mode",
    "ping_group_range",
    "raw_l3mdev_accept",
    "tcp_allowed_congestion_control",
    "tcp_backlog_ack_defer",
    "tcp_base_mss",
    "tcp_challenge_ack_limit",
    "tcp_child_ehash_entries",
    "tcp_comp_sack_delay_ns",
    "tcp_comp_sack_nr",
    "tcp_comp_sack_rtt_percent",
    "tcp_comp_sack_slack_ns",
    "tcp_congestion_control",
    "tcp_early_demux",
    "tcp_ecn_option",
    "tcp_ecn_option_beacon",
    "tcp_fack",
    "tcp_fastopen",
    "tcp_fastopen_blackhole_timeout_sec",
    "tcp_fastopen_key",
    "tcp_fwmark_accept",
    "tcp_invalid_ratelimit",
    "tcp_l3mdev_accept",
    "tcp_limit_output_bytes",
    "tcp_max_reordering",
    "tcp_max_syn_backlog",
    "tcp_max_tw_buckets",
    "tcp_min_snd_mss",
    "tcp_min_tso_segs",
    "tcp_moderate_rcvbuf",
    "tcp_mtu_probe_floor",
    "tcp_no_ssthresh_metrics_save",
    "tcp_notsent_lowat",
    "tcp_pacing_ca_ratio",
    "tcp_pacing_ss_ratio",
    "tcp_plb_cong_thresh",
    "tcp_plb_idle_rehash_rounds",
    "tcp_plb_rehash_rounds",
    "tcp_plb_suspend_rto_sec",
    "tcp_probe_interval",
    "tcp_probe_threshold",
    "tcp_rcvbuf_low_rtt",
    "tcp_reflect_tos",
    "tcp_reordering",
    "tcp_retrans_collapse",
    "tcp_rmem",
    "tcp_stdurg",
    "tcp_tso_rtt_log",
    "tcp_tso_win_divisor",
    "tcp_tw_reuse_delay",
    "tcp_wmem",
    "tcp_workaround_signed_windows",
    "udp_child_hash_entries",
    "udp_early_demux",
    "udp_l3mdev_accept",
    "udp_rmem_min",
    "udp_wmem_min",
    "xfrm4_gc_thresh",
    "route.min_adv_mss",
    "route.min_pmtu",
    "route.mtu_expires",
];

/// Names that exist once for the whole machine: no namespace has its own, so none can be set.
const GLOBAL: &[&str] = &[
    "cipso_cache_bucket_size",
    "cipso_cache_enable",
    "cipso_rbm_optfmt",
    "cipso_rbm_strictvalid",
    "fib_sync_mem",
    "inet_peer_maxttl",
    "inet_peer_minttl",
    "inet_peer_threshold",
    "ipfrag_secret_interval",
    "route.error_burst",
    "route.error_cost",
    "route.flush",
    "route.gc_elasticity",
    "route.gc_interval",
    "route.gc_min_interval",
    "route.gc_min_interval_ms",
    "route.gc_thresh",
    "route.gc_timeout",
    "route.max_size",
    "route.redirect_load",
    "route.redirect_number",
    "route.redirect_silence",
    "tcp_available_congestion_control",
    "tcp_available_ulp",
    "tcp_ehash_entries",
    "tcp_low_latency",
    "tcp_max_orphans",
    "tcp_mem",
    "udp_hash_entries",
    "udp_mem",
];

/// Names below `conf.INTERFACE.`.
const CONF: &[&str] = &[
    "accept_local",
    "accept_redirects",
    "accept_source_route",
    "arp_accept",
    "arp_announce",
    "arp_evict_nocarrier",
    "arp_filter",
    "arp_ignore",
    "arp_notify",
    "bc_forwarding",
    "bootp_relay",
    "disable_policy",
    "disable_xfrm",
    "drop_gratuitous_arp",
    "drop_unicast_in_l2_multicast",
    "force_igmp_version",
    "forwarding",
    "igmpv2_unsolicited_report_interval",
    "igmpv3_unsolicited_report_interval",
    "ignore_routes_with_linkdown",
    "log_martians",
    "medium_id",
    "promote_secondaries",
    "proxy_arp",
    "proxy_arp_pvlan",
    "route_localnet",
    "rp_filter",
    "secure_redirects",
    "send_redirects",
    "shared_media",
    "src_valid_mark",
    "tag",
];

/// Names below `neigh.INTERFACE.`.
const NEIGH: &[&str] = &[
    "anycast_delay",
    "app_solicit",
    "base_reachable_time",
    "base_reachable_time_ms",
    "delay_first_probe_time",
    "gc_stale_time",
    "interval_probe_time_ms",
    "locktime",
    "mcast_resolicit",
    "mcast_solicit",
    "proxy_delay",
    "proxy_qlen",
    "retrans_time",
    "retrans_time_ms",
    "ucast_solicit",
    "unres_qlen",
    "unres_qlen_bytes",
];

/// What a sysctl accepts.
///
/// # Errors
/// A sentence: an unknown name (with the nearest known one), or one that no namespace has of its own.
pub fn accepts(name: &str) -> Result<String, String> {
    if let Some((_, least, most)) = NUMBERS.iter().find(|(known, ..)| *known == name) {
        return Ok(format!("a whole number from {least} to {most}"));
    }
    if GLOBAL.contains(&name) {
        return Err(format!("`net.ipv4.{name}` belongs to the whole machine, not to a namespace"));
    }
    let trees = [("conf.", CONF), ("neigh.", NEIGH)];
    let leaf = trees.iter().find_map(|(tree, leaves)| Some((per_interface(name, tree)?, *leaves)));
    if OTHERS.contains(&name) || leaf.is_some_and(|(leaf, leaves)| leaves.contains(&leaf)) {
        return Ok("what the kernel accepts".into());
    }
    let names = || NUMBERS.iter().map(|(name, ..)| *name).chain(OTHERS.iter().copied());
    let hint = match leaf {
        None if name.starts_with("net.") => Some("only those below `net.ipv4` are accepted".into()),
        None => nearest(name, names()).map(|near| format!("is it `{near}`?")),
        Some((leaf, leaves)) => nearest(leaf, leaves.iter().copied())
            .map(|near| format!("is it `{}{near}`?", name.strip_suffix(leaf).unwrap_or_default())),
    };
    let hint = hint.unwrap_or_else(|| LISTED.into());
    Err(format!("Linux has no sysctl `net.ipv4.{name}`: {hint}"))
}

/// Where the accepted names stand.
const LISTED: &str = "accepted are the files below /proc/sys/net/ipv4, by names such as `tcp_retries2` or \
                      `conf.all.rp_filter`";

/// Checks a sysctl before anything is built.
///
/// # Errors
/// As for [`accepts`], or a value outside the kernel's limits.
pub fn check(name: &str, value: &str) -> Result<(), String> {
    let accepted = accepts(name)?;
    let limits = NUMBERS.iter().find(|(known, ..)| *known == name);
    let is_accepted = match limits {
        Some((_, least, most)) => {
            value.trim().parse().is_ok_and(|number: i64| (*least..=*most).contains(&number))
        }
        None if value.trim().is_empty() || value.contains('\n') => {
            return Err(format!("`{}` is not a value of a sysctl", value.escape_debug()));
        }
        None => true,
    };
    if is_accepted { Ok(()) } else { Err(format!("`{value}` is not {accepted}")) }
}

/// The name nearest to `name`, if one is near enough to have been meant.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().max(name.len()) / 3)
        .map(|(_, known)| known)
}

fn per_interface<'a>(name: &'a str, tree: &str) -> Option<&'a str> {
    let (interface, leaf) = name.strip_prefix(tree)?.split_once('.')?;
    (!interface.is_empty() && !interface.contains('/')).then_some(leaf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_pass_and_others_are_refused_with_a_reason() {
        for (name, value) in [
            ("tcp_retries2", "5"),
            ("tcp_retries2", "255"),
            ("conf.all.rp_filter", "0"),
            ("neigh.default.base_reachable_time_ms", "1000"),
            ("tcp_rmem", "4096 131072 6291456"),
        ] {
            assert_eq!(check(name, value), Ok(()), "{name}={value}");
        }
        for (name, value, complaint) in [
            ("tcp_retries2", "256", "from 0 to 255"),
            ("tcp_retries2", "many", "from 0 to 255"),
            ("tcp_retries2", "-1", "from 0 to 255"),
            ("tcp_retires2", "5", "is it `tcp_retries2`?"),
            ("conf.all.rp_filte", "0", "is it `conf.all.rp_filter`?"),
            ("foo", "0", "`net.ipv4.foo`: accepted are the files below /proc/sys/net/ipv4"),
            ("neigh.eth0.foo", "0", "accepted are the files below /proc/sys/net/ipv4"),
            ("net.core.somaxconn", "1", "only those below `net.ipv4` are accepted"),
            ("tcp_mem", "1 2 3", "whole machine"),
            ("../../kernel/panic", "1", "no sysctl"),
            ("conf.all/../x.rp_filter", "1", "no sysctl"),
            ("tcp_rmem", "", "not a value"),
        ] {
            let error = check(name, value).unwrap_err();
            assert!(error.contains(complaint), "{name}={value}: {error}");
        }
    }
}
