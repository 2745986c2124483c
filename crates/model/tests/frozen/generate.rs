//! Draws the cases: the validation's settings at four HZ, then settings and facts of all kinds.
//! The same numbers give the same cases.

use crate::case::Case;
use spec::facts::{JiffyClock, NeighbourFacts, TcpFacts};
use spec::{FaultKind, Parameters, Topology, settings};
use std::collections::BTreeMap;

const VALIDATION: &str = include_str!("../../../halfopen/validation.toml");
const EXPERIMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../experiments");
const GENERATED: u64 = 3_000;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for sets in validation() {
        for hz in [100, 250, 300, 1000] {
            let facts = model::nominal_facts(&crate::common::parameters(&sets), hz);
            cases.push(Case::new(facts, None, sets.clone()));
        }
    }
    cases.extend((0..GENERATED).map(|number| draw(&mut Dice(number))));
    cases
}

fn validation() -> Vec<Vec<(String, String)>> {
    type Parts = BTreeMap<String, BTreeMap<String, Vec<String>>>;
    let parts: Parts = toml::from_str(VALIDATION).unwrap();
    let mut all = Vec::new();
    for (name, lines) in parts.into_values().flatten() {
        let text = std::fs::read_to_string(format!("{EXPERIMENTS}/{name}.toml")).unwrap();
        for line in lines {
            let overrides: Vec<_> = line
                .split_whitespace()
                .map(|set| spec::file::parse_override(set).unwrap())
                .collect();
            let experiment = spec::file::load(&name, &name, &text, false, &overrides).unwrap();
            all.push(differing(&experiment.parameters));
        }
    }
    all
}

/// The settings that differ from the defaults.
fn differing(parameters: &Parameters) -> Vec<(String, String)> {
    let defaults = settings::all(&Parameters::default());
    let mut sets: Vec<_> = settings::all(parameters)
        .into_iter()
        .filter(|(key, value)| defaults.get(key) != Some(value) && key != "deadline")
        .collect();
    // Those that are shown only where they matter.
    if parameters.fault.duration.is_none() {
        sets.retain(|(key, _)| key != "fault.duration");
    }
    sets
}

/// Numbers that look random (Steele and others, `SplitMix64`).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Settings as they are set, and whether they were.
struct Draft<'a> {
    dice: &'a mut Dice,
    sets: Vec<(String, String)>,
}

impl Draft<'_> {
    fn set(&mut self, key: &str, choices: &[&str]) {
        let value = self.dice.pick(choices);
        self.sets.push((key.into(), value.into()));
    }

    /// The same in so many of a hundred cases.
    fn sometimes(&mut self, share: u64, key: &str, choices: &[&str]) {
        if self.dice.percent(share) {
            self.set(key, choices);
        }
    }

    fn is(&self, key: &str, value: &str) -> bool {
        self.sets.iter().any(|set| set.0 == key && set.1 == value)
    }
}

fn draw(dice: &mut Dice) -> Case {
    loop {
        let sets = draw_settings(dice);
        let parameters = crate::common::parameters(&sets);
        if parameters.validate().is_ok() {
            return draw_facts(dice, &parameters, differing(&parameters));
        }
    }
}

fn draw_settings(dice: &mut Dice) -> Vec<(String, String)> {
    let mut draft = Draft { dice, sets: Vec::new() };
    let d = &mut draft;
    d.set("topology", &["switch", "switch", "router", "router", "direct"]);
    d.sometimes(25, "family", &["ipv6"]);
    d.sometimes(35, "neighbour", &["learned"]);
    let traffics = ["idle", "idle", "idle", "one-write", "one-write", "one-write", "stream"];
    let more = ["heartbeat", "connect", "close", "shutdown", "close"];
    d.set("client.traffic", &[&traffics[..], &more].concat());
    let faults = ["power-off", "power-off", "blackhole", "reboot", "flap", "none"];
    let more = ["process-crash", "process-freeze", "reject", "reject", "unplug"];
    d.set("fault.kind", &[&faults[..], &more].concat());
    let times = ["0s", "100ms", "200ms", "200ms", "1s", "5250ms", "7s", "31s", "1h"];
    d.sometimes(50, "fault.after", &times);
    let durations = ["300ms", "500ms", "2500ms", "5500ms", "8300ms", "33s", "41s", "90s", "20m"];
    if ["flap", "reboot", "process-freeze"].iter().any(|kind| d.is("fault.kind", kind)) {
        d.set("fault.duration", &durations);
    }
    if d.is("fault.kind", "reject") {
        let kinds = ["tcp-reset", "host-unreachable", "net-unreachable"];
        d.set("fault.reject", &[&kinds[..], &["port-unreachable", "admin-prohibited"]].concat());
    }
    if d.is("fault.kind", "reboot") {
        d.sometimes(30, "fault.new_mac", &["true"]);
    }
    d.sometimes(30, "path.rtt", &["20ms", "40ms", "120ms", "150ms", "400ms", "1s", "3s"]);
    draw_sockets(d);
    draw_sysctls(d);
    draft.sets
}

fn draw_sockets(d: &mut Draft<'_>) {
    let idle = d.is("client.traffic", "idle");
    let connects = d.is("client.traffic", "connect");
    let seconds = ["1s", "2s", "3s", "5s", "10s", "40s", "2h"];
    if !connects && d.dice.percent(if idle { 65 } else { 25 }) {
        d.set("client.keepalive.enabled", &["true"]);
        d.sometimes(85, "client.keepalive.idle", &seconds);
        d.sometimes(85, "client.keepalive.interval", &seconds);
        d.sometimes(85, "client.keepalive.probes", &["1", "2", "3", "4", "5", "9"]);
    }
    let timeouts = ["1ms", "300ms", "700ms", "2s", "3s", "5s", "12500ms", "60s", "10m"];
    d.sometimes(25, "client.user_timeout", &timeouts);
    d.sometimes(10, "client.rto_max", &["1s", "2s", "10s"]);
    if !connects {
        d.sometimes(6, "client.rto_min", &["20ms", "50ms", "111ms"]);
        d.sometimes(6, "path.rto_min", &["1ms", "50ms", "400ms", "2s"]);
        d.sometimes(8, "client.thin_linear_timeouts", &["true"]);
    }
    if d.is("client.traffic", "close") {
        d.sometimes(35, "client.linger", &["0s", "2s", "5s", "70s"]);
    }
    if d.is("client.traffic", "one-write") {
        let times = ["1ms", "50ms", "100ms", "150ms", "1s", "5s", "30s"];
        d.sometimes(35, "client.second_write", &times);
    }
    if d.is("client.traffic", "heartbeat") {
        d.sometimes(70, "client.heartbeat.interval", &["50ms", "300ms", "1s", "5s", "30s"]);
        d.sometimes(70, "client.heartbeat.deadline", &["100ms", "500ms", "2s", "10s", "20m"]);
    }
    if idle && d.dice.percent(25) {
        d.set("client.fills_window", &["true"]);
        d.set("server.reads", &["false"]);
    } else {
        d.sometimes(10, "server.reads", &["false"]);
        d.sometimes(5, "server.fills_window", &["true"]);
    }
    d.sometimes(8, "server.linger", &["0s", "3s"]);
    d.sometimes(6, "server.inherited", &["true"]);
}

fn draw_sysctls(d: &mut Draft<'_>) {
    let retries = ["0", "1", "2", "3", "3", "4", "5", "5", "6", "8", "15"];
    d.sometimes(70, "sysctl.tcp_retries2", &retries);
    d.sometimes(15, "sysctl.tcp_early_retrans", &["0"]);
    d.sometimes(8, "sysctl.tcp_rto_min_us", &["20000", "150000", "1000000"]);
    d.sometimes(6, "sysctl.tcp_thin_linear_timeouts", &["1"]);
    let seconds = ["1", "2", "4", "10", "75"];
    d.sometimes(10, "sysctl.tcp_keepalive_time", &seconds);
    d.sometimes(10, "sysctl.tcp_keepalive_intvl", &seconds);
    d.sometimes(10, "sysctl.tcp_keepalive_probes", &["0", "1", "2", "5"]);
    if d.is("client.traffic", "connect") {
        d.sometimes(60, "sysctl.tcp_syn_retries", &["1", "2", "3", "4", "6"]);
        d.sometimes(40, "sysctl.tcp_syn_linear_timeouts", &["0", "1", "2", "4"]);
    }
    if d.is("client.traffic", "close") {
        d.sometimes(60, "sysctl.tcp_orphan_retries", &["0", "1", "2", "3", "7"]);
        d.sometimes(60, "sysctl.tcp_fin_timeout", &["1", "3", "60", "61", "100"]);
    }
    if d.dice.percent(15) {
        d.set("later.after", &["0s", "500ms", "2s", "2500ms", "10s", "3h"]);
        let retries = ["0", "1", "3", "6", "15"];
        d.sometimes(60, "later.sysctl.tcp_retries2", &retries);
        d.sometimes(30, "later.sysctl.tcp_keepalive_intvl", &seconds);
        d.sometimes(30, "later.sysctl.tcp_keepalive_probes", &["0", "1", "2", "9"]);
        d.sometimes(20, "later.sysctl.tcp_keepalive_time", &seconds);
        d.sometimes(20, "later.sysctl.tcp_orphan_retries", &["1", "7"]);
    }
}

/// Facts as an imagined machine has them, or as one would measure them at the fault.
fn draw_facts(dice: &mut Dice, parameters: &Parameters, sets: Vec<(String, String)>) -> Case {
    let hz = [100, 250, 250, 300, 1000][dice.below(5) as usize];
    let mut facts = model::nominal_facts(parameters, hz);
    facts.kernel = dice.pick(&["6.18", "6.12"]).into();
    facts.virtual_time = dice.percent(30);
    if dice.percent(40) {
        return Case::new(facts, None, sets);
    }

    let after_ms = parameters.fault.after.as_millis() as u64 + dice.below(3);
    let sampled_at_ns = 5_000_000_000 + after_ms * 1_000_000 + dice.below(300_000_000_000);
    // `INITIAL_JIFFIES`, and the tick before the sample.
    let tick_ns = (1_000_000_000 + u64::from(hz) / 2) / u64::from(hz);
    let ticks = sampled_at_ns / tick_ns;
    let jiffies = (1 << 32) - 300 * u64::from(hz) + ticks;
    facts.jiffies = Some(JiffyClock { jiffies, at_ns: ticks * tick_ns });
    let rtt_ms = parameters.path.rtt.as_millis() as u64;
    let connects = parameters.client.traffic == spec::Traffic::Connect;
    let tcp = facts.tcp.take().unwrap_or_default();
    let jiffy_us = 1_000_000 / hz;
    let rto_us = tcp.rto_us + jiffy_us * dice.below(4) as u32;
    let mut tcp = TcpFacts {
        rto_us,
        srtt_us: tcp.srtt_us + dice.below(200) as u32,
        sampled_at_ns,
        last_data_recv_ms: after_ms as u32,
        last_ack_recv_ms: after_ms as u32,
        ..tcp
    };
    let keepalive = &parameters.client.keepalive;
    if parameters.client.fills_window {
        fill_window(&mut tcp, after_ms);
    } else if keepalive.enabled {
        let idle = parameters.sysctl.get("tcp_keepalive_time").and_then(|text| text.parse().ok());
        let idle_ms = keepalive.idle.map_or(idle.unwrap_or(7200) * 1000, |t| t.as_millis() as u64);
        tcp.timer = TcpFacts::TIMER_KEEPALIVE;
        let since_enabled = after_ms + rtt_ms;
        // The one that went off since then asks for the rest, and the peer's answer comes meanwhile.
        let due = idle_ms.saturating_sub(since_enabled % idle_ms.max(1));
        tcp.timer_expires_ms = (due as u32).div_ceil(jiffy_us / 1000).max(1) * (jiffy_us / 1000);
        if after_ms > idle_ms {
            tcp.last_ack_recv_ms = (after_ms % idle_ms.max(1)) as u32;
        }
    }
    if !connects {
        facts.tcp = Some(tcp);
    }
    let rejected = parameters.fault.kind == FaultKind::Reject;
    let learned = parameters.neighbour == spec::Neighbour::Learned;
    if learned && !rejected && parameters.topology != Topology::Direct && dice.percent(80) {
        let state = [2, 2, 2, 4, 8, 16][dice.below(6) as usize];
        let confirmed_ms = after_ms.min(200_000) / 10 * 10 + if state == 2 { 0 } else { 46_000 };
        facts.neighbour = Some(NeighbourFacts {
            state,
            sampled_at_ns,
            confirmed_ms,
            updated_ms: confirmed_ms.min(dice.below(900)),
            reachable_ms: 15_000 + dice.below(30_000),
            delay_ms: 5_000,
            retrans_ms: 1_000,
            direct_questions: 3,
            questions_to_all: 3,
            drawn_ms: dice.below(300_000) as i64,
        });
    }
    let first_write_ns = dice.percent(50).then(|| sampled_at_ns + 100_000 + dice.below(3_000_000));
    Case::new(facts, first_write_ns, sets)
}

/// Window probes until the fault: each time twice as long after the one before.
fn fill_window(tcp: &mut TcpFacts, after_ms: u64) {
    let rto_ms = u64::from(tcp.rto_us / 1000).max(1);
    let (mut at_ms, mut probes) = (rto_ms, 0_u8);
    while at_ms < after_ms {
        probes += 1;
        at_ms += (rto_ms << probes.min(12)).min(120_000);
    }
    tcp.timer = TcpFacts::TIMER_PROBE0;
    tcp.timer_expires_ms = (at_ms - after_ms) as u32;
    (tcp.backoff, tcp.probes) = (probes, 0);
    if probes > 0 {
        tcp.window_probed_at_ns = Some(tcp.sampled_at_ns - (after_ms - rto_ms) * 1_000_000);
        tcp.last_ack_recv_ms = (after_ms - rto_ms) as u32;
    }
}
