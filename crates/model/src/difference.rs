//! The engine held against the machine that it replaces, where that still answers: on generated
//! scenes of the write timer.

use crate::kernel::Kernel;
use crate::old;
use crate::scene::Scene;
use crate::tick::Phase;
use crate::windows::{Counted, windows};
use crate::{Window, connecting, nominal_facts, sending, start};
use spec::facts::JiffyClock;
use spec::{Facts, Family, FaultKind, Neighbour, Parameters, Reject, Topology, Traffic};
use std::time::Duration;

/// A generator of choices: xorshift.
struct Rng(u64);

impl Rng {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % most
    }

    fn one_in(&mut self, most: u64) -> bool {
        self.below(most) == 0
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

fn generated(seed: u64) -> (Parameters, Facts, Option<u64>) {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x00ab_cdef);
    let mut p = Parameters::default();
    let ms = Duration::from_millis;
    p.topology = rng.pick(Topology::ALL);
    p.family = rng.pick(Family::ALL);
    p.neighbour = if rng.one_in(3) { Neighbour::Learned } else { Neighbour::Permanent };
    p.client.traffic = rng.pick(&[
        Traffic::OneWrite,
        Traffic::Stream,
        Traffic::Heartbeat,
        Traffic::Connect,
        Traffic::Close,
        Traffic::Shutdown,
    ]);
    p.fault.kind = rng.pick(FaultKind::ALL);
    p.fault.reject = rng.pick(Reject::ALL);
    p.fault.new_mac = rng.one_in(3);
    p.fault.after = ms(rng.pick(&[0, 200, 1000, 7000]));
    p.fault.duration = Some(ms(rng.pick(&[300, 900, 2000, 5000, 30_000])));
    if rng.one_in(3) {
        p.client.user_timeout = Some(ms(rng.pick(&[1, 300, 500, 1074, 3000, 10_000, 60_000])));
    }
    if rng.one_in(4) {
        p.client.rto_max = Some(ms(rng.pick(&[1000, 5000, 120_000])));
    }
    if rng.one_in(4) {
        p.path.rtt = ms(rng.pick(&[1, 20, 150, 600, 1100]));
    }
    p.client.thin_linear_timeouts = rng.one_in(6);
    p.client.second_write = rng.one_in(5).then(|| ms(rng.pick(&[50, 150, 1000])));
    p.client.linger = rng.one_in(4).then(|| Duration::from_secs(rng.pick(&[1, 5, 60])));
    if rng.one_in(5) {
        p.later.after = ms(rng.pick(&[500, 2000, 20_000]));
        p.later.sysctl.insert("tcp_retries2".into(), rng.pick(&["0", "2", "5", "9"]).into());
    }
    for (name, values) in [
        ("tcp_retries2", &["0", "1", "2", "3", "4", "5", "8"][..]),
        ("tcp_early_retrans", &["0", "3", "3"]),
        ("tcp_orphan_retries", &["0", "1", "3", "7"]),
        ("tcp_fin_timeout", &["1", "60", "61", "120"]),
        ("tcp_syn_retries", &["1", "2", "3", "6"]),
    ] {
        p.sysctl.insert(name.into(), rng.pick(values).into());
    }
    let hz = rng.pick(&[100, 250, 250, 300, 1000]);
    let mut facts = nominal_facts(&p, hz);
    facts.kernel = rng.pick(&["6.12.9", "6.18.44"]).into();
    facts.virtual_time = rng.one_in(2);
    let called = rng.one_in(2).then(|| 3_002_400_000_000 + rng.below(1_000_000_000));
    let jiffies = 4_295_000_000 + rng.below(100_000);
    facts.jiffies = called.map(|_| JiffyClock { jiffies, at_ns: 3_002_280_000_000 });
    (p, facts, called)
}

fn scenes(cfg: &Kernel, p: &Parameters, facts: &Facts) -> Option<Vec<Scene>> {
    let is_lost = !p.fault.kind.effect().peer_kernel_answers();
    let is_reset = p.fault.kind == FaultKind::Reject && p.fault.reject == Reject::TcpReset;
    if p.validate().is_err() || !is_lost || is_reset {
        return None;
    }
    match p.client.traffic {
        Traffic::Connect => connecting::scenes(cfg, p, facts).ok(),
        _ => sending::scenes(cfg, p, facts).ok(),
    }
}

/// How the windows differ, if they do.
fn differs(before: &[Window], after: &[Window], exactly: bool) -> Option<String> {
    let slack = Duration::from_micros(1);
    let inside = |inner: &Window, outer: &Window| {
        inner.differs_in_time_only(outer)
            && match (inner.span, outer.span) {
                (Some(inner), Some(outer)) => {
                    outer.0 <= inner.0 + slack && inner.1 <= outer.1 + slack
                }
                (None, None) => true,
                _ => false,
            }
    };
    let new = after.iter().find(|new| !before.iter().any(|old| inside(new, old)));
    let met = |old: &Window| {
        after.iter().any(|new| if exactly { inside(old, new) } else { inside(new, old) })
    };
    let old = before.iter().find(|old| !met(old));
    (new.is_some() || old.is_some()).then(|| format!("was {before:#?}\nis {after:#?}"))
}

/// Where time is virtual: the same windows, or narrower ones where the old machine looked at phases in
/// steps. On a real clock, where the engine answers: inside of what it was.
#[test]
fn scenes_end_as_they_did() {
    let (mut compared, mut equal) = (0_u64, 0_u64);
    for seed in 0..CASES {
        let (p, facts, called) = generated(seed);
        let cfg = Kernel::new(&p, &facts);
        let Some(scenes) = scenes(&cfg, &p, &facts) else { continue };
        let goes_on = scenes.iter().any(|scene| scene.write_interval_ns.is_some());
        let hears = scenes.iter().any(|scene| scene.has_timer() || scene.rejects());
        if !facts.virtual_time && (goes_on || hears) {
            continue;
        }
        let clock = facts.jiffies.map(|clock| Phase::new(cfg.hz, clock));
        let starts: Vec<u64> = clock
            .zip(called)
            .into_iter()
            .flat_map(|(clock, at_ns)| [at_ns, at_ns + 100_000].map(|at_ns| clock.of(at_ns)))
            .flatten()
            .collect();
        let mut courses = old::Courses::new(cfg.hz);
        if starts.is_empty() {
            old::courses(&cfg, &scenes, &mut courses).unwrap();
        }
        for start_ns in &starts {
            old::courses_at(&cfg, &scenes, *start_ns, &mut courses).unwrap();
        }
        let (before, _) = courses.into_windows();
        let counted = Counted { while_it_lives: !goes_on, ..Counted::default() };
        let ends = start::ends(&cfg, &scenes, &starts).unwrap();
        let (after, _) = windows(&ends, &counted, cfg.hz);
        compared += 1;
        equal += u64::from(differs(&before, &after, true).is_none());
        if let Some(how) = differs(&before, &after, false) {
            panic!("{seed}: {p:#?} {} {:?}\n{how}", facts.hz, facts.virtual_time);
        }
    }
    println!("{compared} compared, {equal} equal, the others narrower");
    assert!(compared > CASES / 8 && equal * 10 > compared * 9, "{equal} of {compared}");
}

const CASES: u64 = 240;
