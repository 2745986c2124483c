//! The engine held against the machines that it replaces.
#![cfg(test)]
#![allow(clippy::all, clippy::pedantic)]

use crate::kernel::Kernel;
use crate::old;
use crate::windows::{Counted, windows};
use crate::{Window, nominal_facts};
use proptest::prelude::*;
use spec::facts::JiffyClock;
use spec::{Facts, FaultKind, Outcome, Parameters, Topology, Traffic};
use std::time::{Duration, Instant};

pub(crate) fn generated(seed: u64) -> (Parameters, Facts, Option<u64>) {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xabcdef);
    let mut p = Parameters::default();
    let ms = Duration::from_millis;
    p.topology = *rng.pick(Topology::ALL);
    p.family = *rng.pick(spec::Family::ALL);
    p.neighbour = if rng.one_in(3) { spec::Neighbour::Learned } else { spec::Neighbour::Permanent };
    p.client.traffic = *rng.pick(&Traffic::ALL[..7]);
    p.fault.kind = *rng.pick(FaultKind::ALL);
    p.fault.reject = *rng.pick(spec::Reject::ALL);
    p.fault.new_mac = rng.one_in(3);
    p.fault.after = ms(*rng.pick(&[0, 30, 200, 200, 200, 1000, 7000]));
    p.fault.duration = Some(ms(*rng.pick(&[300, 900, 2000, 5000, 30_000, 130_000])));
    let k = &mut p.client.keepalive;
    k.enabled = rng.one_in(2);
    if rng.one_in(2) {
        k.idle = Some(Duration::from_secs(*rng.pick(&[1, 2, 3, 10, 40])));
        k.interval = Some(Duration::from_secs(*rng.pick(&[1, 2, 3, 10])));
        k.probes = Some(*rng.pick(&[1, 2, 3, 5, 9, 40]));
    }
    if rng.one_in(3) {
        p.client.user_timeout = Some(ms(*rng.pick(&[1, 300, 500, 1074, 3000, 10_000, 60_000, 600_000])));
    }
    if rng.one_in(4) { p.client.rto_max = Some(ms(*rng.pick(&[1000, 5000, 120_000]))); }
    if rng.one_in(4) { p.path.rtt = ms(*rng.pick(&[1, 20, 150, 600, 1100])); }
    if rng.one_in(6) { p.client.thin_linear_timeouts = true; }
    if rng.one_in(5) { p.client.second_write = Some(ms(*rng.pick(&[50, 150, 1000, 5000]))); }
    if rng.one_in(4) { p.client.linger = Some(Duration::from_secs(*rng.pick(&[0, 1, 5, 60]))); }
    if rng.one_in(6) { p.server.reads = false; }
    if rng.one_in(2) && p.client.traffic == Traffic::Idle { p.client.fills_window = true; p.server.reads = false; }
    if rng.one_in(8) { p.server.inherited = true; }
    if rng.one_in(5) {
        p.later.after = ms(*rng.pick(&[500, 2000, 20_000, 100_000]));
        p.later.sysctl.insert("tcp_retries2".into(), rng.pick(&["0", "2", "5", "9"]).to_string());
        p.later.sysctl.insert("tcp_keepalive_intvl".into(), rng.pick(&["1", "20"]).to_string());
    }
    if rng.one_in(2) { p.sysctl.insert("tcp_retries2".into(), rng.pick(&["0","1","2","3","4","5","6","8","15","16"]).to_string()); }
    if rng.one_in(5) { p.sysctl.insert("tcp_early_retrans".into(), "0".into()); }
    if rng.one_in(4) { p.sysctl.insert("tcp_orphan_retries".into(), rng.pick(&["0","1","3","7"]).to_string()); }
    if rng.one_in(4) { p.sysctl.insert("tcp_fin_timeout".into(), rng.pick(&["1","60","61","120"]).to_string()); }
    if rng.one_in(4) { p.sysctl.insert("tcp_syn_retries".into(), rng.pick(&["1","2","3","9"]).to_string()); }
    let hz = *rng.pick(&[100, 250, 250, 300, 1000]);
    let mut f = nominal_facts(&p, hz);
    f.kernel = rng.pick(&["6.12.9", "6.18.44"]).to_string();
    f.virtual_time = rng.one_in(2);
    let mut at = None;
    if rng.one_in(3) {
        f.jiffies = Some(JiffyClock { jiffies: 4_295_000_000 + rng.below(100_000), at_ns: 3_002_280_000_000 });
        at = Some(3_002_400_000_000 + rng.below(1_000_000_000));
    }
    (p, f, at)
}

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13; self.0 ^= self.0 >> 7; self.0 ^= self.0 << 17; self.0
    }
    fn below(&mut self, n: u64) -> u64 { (self.next() >> 11) % n }
    fn one_in(&mut self, n: u64) -> bool { self.below(n) == 0 }
    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T { &all[self.below(all.len() as u64) as usize] }
}

/// Every new window inside an old one; every old window met by a new one.
pub(crate) fn compare(old: &[Window], new: &[Window], exact: bool) -> Result<(), String> {
    let slack = Duration::from_micros(1);
    let same = |a: &Window, b: &Window| a.differs_in_time_only(b);
    for n in new {
        let ok = old.iter().any(|o| same(o, n) && match (o.span, n.span) {
            (Some(o), Some(n)) => o.0 <= n.0 + slack && n.1 <= o.1 + slack,
            (None, None) => true,
            _ => false,
        });
        if !ok { return Err(format!("new window not inside: {:?} {:?} {:?}", n.outcome, n.span, (n.retransmits, n.keepalive_probes, n.window_probes))); }
    }
    for o in old {
        let ok = new.iter().any(|n| same(o, n) && match (o.span, n.span) {
            (Some(o), Some(n)) if exact => n.0 <= o.0 + slack && o.1 <= n.1 + slack,
            (Some(o), Some(n)) => o.0 <= n.1 && n.0 <= o.1,
            (None, None) => true,
            _ => false,
        });
        if !ok { return Err(format!("old window not met: {:?} {:?} {:?}", o.outcome, o.span, (o.retransmits, o.keepalive_probes, o.window_probes))); }
    }
    Ok(())
}

fn show(windows: &[Window]) -> String {
    windows.iter().map(|w| format!("\n     {} {:?} {:?}", w.outcome, w.span, (w.retransmits, w.keepalive_probes, w.window_probes))).collect()
}

pub(crate) fn short(p: &Parameters, f: &Facts, at: Option<u64>) -> String {
    format!("{} {} {} {} {}{} reset={} mac={} dur={:?} after={:?} ka={:?} ut={:?} rtomax={:?} rtt={:?} thin={} 2nd={:?} linger={:?} reads={} fill={} inh={} later={:?} {:?} hz={} virt={} known={:?} k={}",
        p.topology, p.family, p.neighbour, p.client.traffic, p.fault.kind, if p.fault.kind == FaultKind::Reject { format!("({})", p.fault.reject) } else { String::new() }, p.fault.reject, p.fault.new_mac, p.fault.duration, p.fault.after,
        p.client.keepalive.enabled.then_some((p.client.keepalive.idle, p.client.keepalive.interval, p.client.keepalive.probes)), p.client.user_timeout, p.client.rto_max, p.path.rtt, p.client.thin_linear_timeouts, p.client.second_write, p.client.linger, p.server.reads, p.client.fills_window, p.server.inherited, p.later, p.sysctl, f.hz, f.virtual_time, at, f.kernel)
}

/// Scenes of the write timer.
#[test]
fn scenes_end_alike() {
    let from: u64 = std::env::var("FROM").ok().and_then(|v| v.parse().ok()).unwrap_or(0);
    let count: u64 = std::env::var("COUNT").ok().and_then(|v| v.parse().ok()).unwrap_or(300);
    let (mut equal, mut inside, mut all, mut bad, mut told_old, mut told_new) = (0, 0, 0, 0, Duration::ZERO, Duration::ZERO);
    let mut kinds = std::collections::BTreeMap::<String, (u32, u32)>::new();
    for seed in from..from + count {
        let (p, f, at) = generated(seed);
        if p.validate().is_err() || p.client.traffic == Traffic::Idle { continue; }
        if matches!(p.fault.kind, FaultKind::None | FaultKind::ProcessFreeze | FaultKind::ProcessCrash) { continue; }
        let cfg = Kernel::new(&p, &f);
        let scenes = if p.client.traffic == Traffic::Connect { old::connecting::scenes(&cfg, &p, &f) } else { old::sending::scenes(&cfg, &p, &f) };
        let Ok(scenes) = scenes else { continue };
        if p.fault.kind == FaultKind::Reject && p.fault.reject == spec::Reject::TcpReset && p.client.traffic != Traffic::Connect { continue; }
        let t = Instant::now();
        let Ok(courses) = old::sending::courses(&cfg, &f, &scenes, at) else { continue };
        let (before, schedule) = courses.into_windows();
        told_old += t.elapsed();
        let known: Vec<u64> = f.jiffies.zip(at).into_iter().flat_map(|(clock, at)| [at, at + 100_000].map(|a| crate::tick::Phase::new(cfg.hz, clock).of(a))).flatten().collect();
        let t = Instant::now();
        let new_scenes = if p.client.traffic == Traffic::Connect { crate::connecting::scenes(&cfg, &p, &f) } else { crate::sending::scenes(&cfg, &p, &f) };
        let ends = crate::start::ends(&cfg, &new_scenes.unwrap(), &known);
        let Ok(ends) = ends else { println!("{seed}: {:?}: {}", ends.err(), short(&p, &f, at)); bad += 1; continue };
        let periodic = matches!(p.client.traffic, Traffic::Stream | Traffic::Heartbeat) || (p.client.traffic == Traffic::OneWrite && p.client.second_write.is_some());
        let counted = Counted { while_it_lives: !periodic, ..Counted::default() };
        let (after, new_schedule) = windows(&ends, &counted, cfg.hz);
        let took = t.elapsed();
        told_new += took;
        all += 1;
        let kind = format!("{} {} virt={}", if p.fault.kind == FaultKind::Reject { "reject".into() } else { p.fault.kind.to_string() }, p.neighbour, f.virtual_time);
        let entry = kinds.entry(kind).or_default();
        entry.0 += 1;
        match compare(&before, &after, true).map(|()| true).or_else(|_| compare(&before, &after, false).map(|()| false)) {
            Ok(exact) => {
                if !exact { inside += 1; if f.virtual_time && std::env::var("INSIDE").is_ok() { println!("{seed} inside: {}\n  old{}\n  new{}", short(&p, &f, at), show(&before), show(&after)); } }
                equal += 1; entry.1 += 1;
                if took > Duration::from_millis(1000) { println!("slow {seed} {took:?} all old {told_old:?} new {told_new:?} {}", short(&p, &f, at)); }
                if f.virtual_time && schedule != new_schedule && std::env::var("SCHEDULE").is_ok() {
                    println!("{seed} schedule differs {}\n  {:?}\n  {:?}", short(&p, &f, at), schedule.iter().zip(&new_schedule).find(|(a, b)| a != b), (schedule.len(), new_schedule.len()));
                }
            }
            Err(why) => {
                bad += 1;
                if bad < 12 { println!("{seed}: {why}\n  {}\n  old{}\n  new{}", short(&p, &f, at), show(&before), show(&after)); }
            }
        }
    }
    println!("{equal} of {all} fit, {inside} of them narrower; old {told_old:?} new {told_new:?}\n{kinds:#?}");
}


/// Idle clients and closed windows.
#[test]
fn idle_ends_alike() {
    let from: u64 = std::env::var("FROM").ok().and_then(|v| v.parse().ok()).unwrap_or(0);
    let count: u64 = std::env::var("COUNT").ok().and_then(|v| v.parse().ok()).unwrap_or(300);
    let (mut equal, mut inside, mut all, mut bad, mut told_old, mut told_new) = (0, 0, 0, 0, Duration::ZERO, Duration::ZERO);
    let mut kinds = std::collections::BTreeMap::<String, (u32, u32)>::new();
    for seed in from..from + count {
        let (mut p, f, at) = generated(seed);
        p.client.traffic = Traffic::Idle;
        if p.validate().is_err() || p.fault.kind == FaultKind::ProcessCrash { continue; }
        let cfg = Kernel::new(&p, &f);
        let t = Instant::now();
        let filled = p.client.fills_window;
        let before = if filled { old::window::predict(&p, &f) } else { old::idle::predict(&cfg, &p, &f) };
        told_old += t.elapsed();
        let t = Instant::now();
        let early_ns = crate::allowance::late(cfg.hz).as_nanos() as u64 - if f.virtual_time { 0 } else { cfg.hz.tick_ns() };
        let counted = Counted { while_it_lives: true, keepalive_probes: !filled, window_probes: filled, early_ns };
        let ends = if filled {
            let looked = f.tcp.as_ref().is_some_and(|tcp| tcp.sampled_at_ns > 0);
            let between_ns = if f.jiffies.is_some() && looked { 0 } else { (old::window::phases(&cfg).1 - 1) as u64 * cfg.hz.tick_ns() };
            crate::window::scenes(&cfg, &p, &f).and_then(|scenes| crate::start::window_ends(&cfg, &scenes, between_ns))
        } else {
            match crate::idle::scenes(&cfg, &p, &f, false) {
                Ok(Some(scenes)) => crate::start::keepalive_ends(&cfg, &scenes),
                Ok(None) => continue,
                Err(why) => Err(why),
            }
        };
        if before.unknown.is_some() || ends.is_err() {
            if before.unknown.is_none() || ends.is_err() && ends.as_ref().err() != before.unknown.as_ref() {
                println!("{seed} unknown: {:?} {:?} {}", before.unknown, ends.err(), short(&p, &f, at));
            }
            continue;
        }
        let (mut after, schedule) = windows(&ends.unwrap(), &counted, cfg.hz);
        if filled { old::window::join(&mut after); }
        let took = t.elapsed();
        told_new += took;
        all += 1;
        let entry = kinds.entry(format!("{} fill={filled} {} virt={}", p.fault.kind, p.neighbour, f.virtual_time)).or_default();
        entry.0 += 1;
        match compare(&before.windows, &after, true).map(|()| true).or_else(|_| compare(&before.windows, &after, false).map(|()| false)) {
            Ok(exact) => {
                if !exact { inside += 1; if f.virtual_time && std::env::var("INSIDE").is_ok() { println!("{seed} inside: {}\n  old{}\n  new{}", short(&p, &f, at), show(&before.windows), show(&after)); } }
                equal += 1; entry.1 += 1;
                if took > Duration::from_millis(1000) { println!("slow {seed} {took:?} all old {told_old:?} new {told_new:?} {}", short(&p, &f, at)); }
                if f.virtual_time && before.schedule != schedule && std::env::var("SCHEDULE").is_ok() {
                    println!("{seed} schedule differs {}\n  {:?}\n  {:?}", short(&p, &f, at), before.schedule.iter().zip(&schedule).find(|(a, b)| a != b), (before.schedule.len(), schedule.len()));
                }
            }
            Err(why) => {
                bad += 1;
                if bad < 12 { println!("{seed}: {why}\n  {}\n  old{}\n  new{}", short(&p, &f, at), show(&before.windows), show(&after)); }
            }
        }
    }
    println!("{equal} of {all} fit, {inside} of them narrower; old {told_old:?} new {told_new:?}\n{kinds:#?}");
}
