//! What predictions must be like, whatever is asked for; and what they were held against.

mod common;

use common::parameters;
use proptest::prelude::*;
use spec::facts::{Facts, JiffyClock, TcpFacts};
use spec::{FaultKind, Outcome, Parameters, Reference, Topology};
use std::time::Duration;

fn predict(sets: &[(&str, &str)], hz: u32) -> model::Prediction {
    let parameters = parameters(sets);
    model::predict(&parameters, &model::nominal_facts(&parameters, hz))
}

const SENDING: [(&str, &str); 2] = [("fault.kind", "power-off"), ("client.traffic", "one-write")];

/// Detection times in seconds with an RTO of 204 ms, as measured on Linux 6.18 at HZ=250.
#[test]
fn windows_hold_what_was_measured() {
    for (sets, outcome, measured_s, retransmits) in [
        (&[("sysctl.tcp_retries2", "0")][..], "ETIMEDOUT", 0.860, 2),
        (&[("sysctl.tcp_retries2", "1")], "ETIMEDOUT", 1.684, 3),
        (&[("sysctl.tcp_retries2", "2")], "ETIMEDOUT", 3.330, 4),
        (&[("sysctl.tcp_retries2", "3")], "ETIMEDOUT", 6.846, 5),
        (&[("sysctl.tcp_retries2", "4")], "ETIMEDOUT", 6.824, 5),
        (&[("sysctl.tcp_retries2", "15")], "ETIMEDOUT", 939.0, 16),
        (
            &[("sysctl.tcp_retries2", "2"), ("sysctl.tcp_early_retrans", "0")],
            "ETIMEDOUT",
            3.1396,
            3,
        ),
        (&[("client.user_timeout", "1ms")], "ETIMEDOUT", 0.4206, 2),
        (&[("client.user_timeout", "500ms")], "ETIMEDOUT", 0.919, 3),
        (&[("client.user_timeout", "3s")], "ETIMEDOUT", 3.4187, 5),
        (&[("client.rto_max", "1s"), ("sysctl.tcp_retries2", "5")], "ETIMEDOUT", 5.783, 7),
        (&[("client.traffic", "stream"), ("sysctl.tcp_retries2", "0")], "ETIMEDOUT", 0.6413, 2),
        (&[("client.traffic", "stream"), ("sysctl.tcp_retries2", "3")], "ETIMEDOUT", 6.5745, 5),
        // Behind the router: ICMP when its ARP fails takes the backoff back.
        (&[("topology", "router"), ("sysctl.tcp_retries2", "2")], "ETIMEDOUT", 3.0724, 4),
        (&[("topology", "router"), ("sysctl.tcp_retries2", "3")], "EHOSTUNREACH", 3.7076, 6),
        (&[("topology", "router"), ("sysctl.tcp_retries2", "5")], "EHOSTUNREACH", 13.3584, 17),
        (&[("topology", "router"), ("sysctl.tcp_retries2", "6")], "EHOSTUNREACH", 27.3359, 30),
        (
            &[("topology", "router"), ("family", "ipv6"), ("sysctl.tcp_retries2", "5")],
            "EHOSTUNREACH",
            13.4783,
            6,
        ),
    ] {
        let sets = [&SENDING[..], sets].concat();
        let prediction = predict(&sets, 250);
        let measured = Duration::from_secs_f64(measured_s);
        assert!(
            prediction.windows.iter().any(|window| {
                let inside = window.span.is_some_and(|(a, b)| a <= measured && measured <= b);
                inside
                    && window.outcome.to_string() == outcome
                    && window.retransmits == Some(retransmits)
            }),
            "{sets:?}: {outcome} at {measured_s} s with {retransmits}: {:#?}",
            prediction.windows
        );
    }
}

/// Rejected by the router, `tcp_retries2` = 3.
#[test]
fn rejects_end_as_measured() {
    for (family, kind, outcome, measured_s, retransmits) in [
        ("ipv4", "host-unreachable", "EHOSTUNREACH", 3.5278, 9),
        ("ipv4", "net-unreachable", "ENETUNREACH", 3.5456, 9),
        ("ipv4", "port-unreachable", "ECONNREFUSED", 6.6688, 5),
        ("ipv4", "admin-prohibited", "EHOSTUNREACH", 6.6548, 5),
        ("ipv4", "tcp-reset", "ECONNRESET", 0.0002, 0),
        ("ipv6", "host-unreachable", "EHOSTUNREACH", 6.8320, 5),
        ("ipv6", "net-unreachable", "ENETUNREACH", 3.4920, 16),
        ("ipv6", "port-unreachable", "ECONNREFUSED", 6.8195, 5),
        ("ipv6", "admin-prohibited", "EACCES", 6.6206, 5),
    ] {
        let prediction = predict(
            &[
                ("topology", "router"),
                ("family", family),
                ("fault.kind", "reject"),
                ("fault.reject", kind),
                ("client.traffic", "one-write"),
                ("sysctl.tcp_retries2", "3"),
            ],
            250,
        );
        let measured = Duration::from_secs_f64(measured_s);
        let [window] = &prediction.windows[..] else { panic!("{family} {kind}: {prediction:#?}") };
        assert_eq!(window.outcome.to_string(), outcome, "{family} {kind}");
        assert_eq!(window.retransmits, Some(retransmits), "{family} {kind}");
        let (earliest, latest) = window.span.unwrap();
        assert!(earliest <= measured && measured <= latest, "{family} {kind}: {window:?}");
    }
}

/// The longest loops of ICMP errors, where time is virtual, so that no timer runs late: the window is
/// the slot of the last timer. After 256 timeouts the kernel's count is back at 0, and one doubling
/// stays (`icsk_retransmits` has eight bits).
#[test]
fn loops_end_in_their_slot_where_time_is_virtual() {
    for (hz, family, retries2, measured_s) in [
        (250, "ipv4", "5", 13.526_761),
        (250, "ipv4", "10", 326.358_761),
        (250, "ipv4", "15", 927.254_761),
        (250, "ipv6", "5", 13.330_766),
        (250, "ipv6", "10", 326.578_766),
        (250, "ipv6", "15", 925.714_767),
        (1000, "ipv6", "10", 325.141_76),
        (1000, "ipv6", "15", 927.125_76),
        (100, "ipv6", "10", 325.228_788),
        (100, "ipv6", "15", 925.468_788),
    ] {
        let parameters = parameters(&[
            ("topology", "router"),
            ("family", family),
            ("fault.kind", "reject"),
            ("fault.reject", "net-unreachable"),
            ("client.traffic", "one-write"),
            ("sysctl.tcp_retries2", retries2),
        ]);
        let facts = Facts {
            kernel: "6.12".into(),
            virtual_time: true,
            ..model::nominal_facts(&parameters, hz)
        };
        let prediction = model::predict(&parameters, &facts);
        let [window] = &prediction.windows[..] else {
            panic!("{family} {retries2}: {prediction:#?}")
        };
        let (earliest, latest) = window.span.unwrap();
        let measured = Duration::from_secs_f64(measured_s);
        assert!(
            earliest <= measured && measured <= latest,
            "HZ={hz} {family} {retries2}: {measured:?} in {window:?}"
        );
        // At 925 s the last timers are of 3.3 s, a slot of 64 jiffies.
        let slot = Duration::from_secs(64) / hz;
        assert!(
            latest <= earliest + slot + Duration::from_millis(15),
            "HZ={hz} {family} {retries2}: {window:?}"
        );
    }
}

/// Without a carrier segments wait in the client's own queue, and are thrown away each time neighbour
/// discovery fails. What the program writes meanwhile is corked (`tcp_should_autocork`); what a
/// timeout could not send again is sent then, and the timer begins anew (`tcp_tsq_write`). Measured
/// where time is virtual, on Linux 6.12.
#[test]
fn a_queue_that_is_thrown_away_begins_the_timer_anew() {
    for (hz, family, traffic, set, measured_s) in [
        (100, "ipv4", "stream", ("client.user_timeout", "1ms"), 0.248_77),
        (250, "ipv4", "stream", ("client.user_timeout", "1ms"), 0.218_764),
        (250, "ipv6", "one-write", ("sysctl.tcp_retries2", "3"), 4.722_769),
        (250, "ipv6", "stream", ("sysctl.tcp_retries2", "3"), 3.122_769),
        (100, "ipv6", "one-write", ("sysctl.tcp_retries2", "3"), 4.908_79),
        (1000, "ipv6", "one-write", ("client.user_timeout", "5s"), 5.013_761),
    ] {
        let parameters = parameters(&[
            ("topology", "direct"),
            ("family", family),
            ("neighbour", "learned"),
            ("fault.kind", "unplug"),
            ("client.traffic", traffic),
            set,
        ]);
        let facts = Facts {
            kernel: "6.12".into(),
            virtual_time: true,
            ..model::nominal_facts(&parameters, hz)
        };
        let prediction = model::predict(&parameters, &facts);
        let measured = Duration::from_secs_f64(measured_s);
        let holds = |window: &model::Window| {
            window.span.is_some_and(|(a, b)| a <= measured && measured <= b)
        };
        assert!(
            prediction.windows.iter().any(holds),
            "HZ={hz} {family} {traffic} {set:?}: {measured:?} in {:#?}",
            prediction.windows
        );
    }
}

/// While the answer is on its way the timers go on: one may give up, or send once more. Measured
/// where time is virtual.
#[test]
fn timers_go_on_until_the_answer_is_there() {
    let router = [("topology", "router"), ("client.traffic", "one-write")];
    let reboot = [
        ("fault.kind", "reboot"),
        ("fault.after", "200ms"),
        ("fault.duration", "300ms"),
        ("path.rtt", "150ms"),
        ("client.user_timeout", "300ms"),
    ];
    let prediction = predict(&[&router[..], &reboot].concat(), 250);
    let measured = Duration::from_millis(1076);
    assert!(
        prediction.windows.iter().any(|window| {
            window.outcome.to_string() == "ETIMEDOUT"
                && window.retransmits == Some(2)
                && window.span.is_some_and(|(a, b)| a <= measured && measured <= b)
        }),
        "{:#?}",
        prediction.windows
    );
    let flap = [("fault.kind", "flap"), ("fault.duration", "300ms"), ("path.rtt", "600ms")];
    let prediction = predict(&[&router[..], &flap].concat(), 250);
    let [window] = &prediction.windows[..] else { panic!("{:#?}", prediction.windows) };
    assert_eq!((window.outcome, window.retransmits), (Outcome::None, Some(2)));
}

/// On a real clock each of 62 timers may run a jiffy late. Those of them that did end at the first
/// timeout past the patience all the same, and with one timeout less where they were late enough.
#[test]
fn late_timers_end_at_the_first_timeout_past_the_patience() {
    let prediction = predict(
        &[
            ("topology", "router"),
            ("family", "ipv6"),
            ("fault.kind", "reject"),
            ("fault.reject", "net-unreachable"),
            ("client.traffic", "one-write"),
            ("sysctl.tcp_retries2", "5"),
        ],
        250,
    );
    let [fewer, window] = &prediction.windows[..] else { panic!("{prediction:#?}") };
    assert_eq!((fewer.retransmits, window.retransmits), (Some(62), Some(63)));
    let (earliest, latest) = window.span.unwrap();
    for measured_s in [13.060_749, 13.063_439, 13.118_334, 13.133_368] {
        let measured = Duration::from_secs_f64(measured_s);
        assert!(earliest <= measured && measured <= latest, "{measured_s}: {window:?}");
    }
    // The first timeout, the patience, a timeout more, a jiffy, and the allowance.
    assert!(latest < Duration::from_millis(411 + 12_600 + 204 + 4 + 12), "{window:?}");
}

#[test]
fn the_articles_numbers() {
    let prediction = predict(&SENDING, 250);
    assert_eq!(prediction.reference, Reference::FirstWrite);
    assert_eq!(prediction.windows.len(), 1);
    assert!(prediction.why.contains("924.6 s"), "{}", prediction.why);
    let parameters = parameters(&SENDING);
    let table = model::table(&prediction, &parameters, &model::nominal_facts(&parameters, 250));
    assert_eq!(table.threshold, Duration::from_millis(924_600));
    assert_eq!(table.rows.len(), 17, "the tail loss probe, 15 retransmissions, the end");

    let keepalive = [("fault.kind", "power-off"), ("client.keepalive.enabled", "true")];
    for (hz, latest_s) in [(100, 8220.0), (250, 8014.0), (300, 8803.0), (1000, 8163.0)] {
        let prediction = predict(&keepalive, hz);
        let (earliest, latest) = prediction.hull().unwrap();
        assert!(earliest >= Duration::from_secs(7874), "HZ={hz}: {earliest:?}");
        assert!(latest.as_secs_f64() < latest_s, "HZ={hz}: {latest:?}");
        assert_eq!(prediction.windows[0].keepalive_probes, Some(9));
    }
}

/// A kernel that nobody has read is predicted as the newest that was, and that is said once.
#[test]
fn a_newer_kernel_is_taken_to_be_as_the_newest_that_was_read() {
    let of = |version: &str| predict(&[&SENDING[..], &[("kernel", version)]].concat(), 250);
    let read = of("6.18");
    for (version, said) in [("6.1", 0), ("6.18", 0), ("6.19", 1), ("7.0", 1), ("7.99", 1)] {
        let prediction = of(version);
        let taken = format!("Linux {version} is taken to be as 6.18");
        assert_eq!(prediction.why.matches(&taken).count(), said, "{}", prediction.why);
        assert!(said == 0 || prediction.windows == read.windows, "{version}");
    }
}

#[test]
fn larger_round_trips_leave_room_for_fewer_retransmissions() {
    let mut last = u32::MAX;
    for rtt in ["0s", "200ms", "1s", "5s"] {
        let prediction = predict(&[&SENDING[..], &[("path.rtt", rtt)]].concat(), 250);
        let retransmits = prediction.windows[0].retransmits.unwrap();
        assert!(retransmits < last, "{rtt}: {retransmits}");
        last = retransmits;
        assert!(prediction.hull().unwrap().0 > Duration::from_millis(924_600));
    }
}

/// Where time stands still while the kernel works, no timer runs late, and a known phase has one end.
/// A timer that runs late adds ends to that: the next misses its slot, or a write comes first.
#[test]
fn late_timers_add_ends_and_take_none_away() {
    let parameters = parameters(&[
        ("client.traffic", "stream"),
        ("fault.kind", "power-off"),
        ("path.rtt", "40ms"),
        ("sysctl.tcp_retries2", "4"),
        ("sysctl.tcp_congestion_control", "reno"),
    ]);
    let mut facts = model::nominal_facts(&parameters, 250);
    facts.jiffies = Some(JiffyClock { jiffies: 4_295_642_804, at_ns: 3_002_280_000_000 });
    let mut late = 0;
    for write_ms in 0..40 {
        let mut spans = |virtual_time| {
            facts.virtual_time = virtual_time;
            let write_ns = 3_002_400_500_000 + write_ms * 1_000_000;
            let prediction = model::predict_after(&parameters, &facts, write_ns);
            prediction.windows.iter().map(|window| window.span.unwrap()).collect::<Vec<_>>()
        };
        let on_time = spans(true);
        let all = spans(false);
        for (earliest, latest) in &on_time {
            let holds = |span: &(Duration, Duration)| span.0 <= *earliest && *latest <= span.1;
            assert!(all.iter().any(holds), "{write_ms}: {on_time:?} {all:?}");
        }
        late += usize::from(all.len() > on_time.len());
    }
    assert!(late > 0);
}

/// The path may be back just before the last retransmission within the heartbeat's deadline, or just
/// after it.
#[test]
fn a_program_may_give_up_before_the_later_of_two_ends() {
    let ends = |deadline| {
        let parameters = parameters(&[
            ("client.traffic", "heartbeat"),
            ("client.heartbeat.deadline", deadline),
            ("fault.kind", "reboot"),
            ("fault.duration", "900ms"),
        ]);
        let mut facts = model::nominal_facts(&parameters, 250);
        facts.jiffies = Some(JiffyClock { jiffies: 4_295_642_804, at_ns: 3_002_280_000_000 });
        let prediction = model::predict_after(&parameters, &facts, 3_002_400_500_000);
        let windows = prediction.windows.iter();
        windows
            .map(|window| (window.outcome.to_string(), window.span.is_some()))
            .collect::<Vec<_>>()
    };
    let reset = ("ECONNRESET".to_owned(), true);
    assert_eq!(ends("1h"), [reset.clone(), reset.clone()]);
    assert_eq!(ends("1200ms"), [reset, ("none".to_owned(), false)]);
    assert_eq!(ends("300ms"), [("none".to_owned(), false)]);
}

#[test]
fn a_known_phase_leaves_narrow_windows() {
    let parameters = parameters(
        &[&SENDING[..], &[("client.rto_max", "1s"), ("sysctl.tcp_retries2", "8")]].concat(),
    );
    let mut facts = model::nominal_facts(&parameters, 250);
    assert_eq!(model::predict(&parameters, &facts).windows.len(), 2, "bimodal by phase alone");
    facts.jiffies = Some(JiffyClock { jiffies: 4_295_642_804, at_ns: 3_002_280_000_000 });
    let mut alone = 0;
    for write_ms in 0..40 {
        let write_ns = 3_002_400_500_000 + write_ms * 1_000_000;
        let prediction = model::predict_after(&parameters, &facts, write_ns);
        for window in &prediction.windows {
            let (earliest, latest) = window.span.unwrap();
            assert!(latest.saturating_sub(earliest) < Duration::from_millis(8), "{window:?}");
        }
        match prediction.windows.len() {
            1 => alone += 1,
            // A slot is 32 ms: in the last jiffy before the next, a timer that runs late matters.
            2 => {}
            _ => panic!("{prediction:#?}"),
        }
    }
    // A tail loss probe and a first timeout that both run late put the stamp off by up to two jiffies,
    // of the eight of a slot: once for the next timeout, and once for the one that is past the patience.
    assert!(alone >= 40 * (8 - 4) / 8, "{alone} of 40");
    // Where nothing runs late there is one.
    facts.virtual_time = true;
    for write_ms in 0..40 {
        let write_ns = 3_002_400_500_000 + write_ms * 1_000_000;
        assert_eq!(model::predict_after(&parameters, &facts, write_ns).windows.len(), 1);
    }
}

/// A trial of Linux 6.12 at HZ=300. Its first retransmission was stamped 49,706 (.662) ms and the last
/// 52,613 (.329) ms: 2,907 ms apart by whole milliseconds, and so the rest of the user timeout, 93 ms,
/// took 28 jiffies, where the 2,906.67 ms that had passed leave 94 ms, and 29.
#[test]
fn whole_milliseconds_decide_about_a_jiffy_where_ticks_do_not_fall_on_them() {
    let parameters = parameters(&[&SENDING[..], &[("client.user_timeout", "3s")]].concat());
    let mut facts = model::nominal_facts(&parameters, 300);
    let tcp = facts.tcp.as_mut().unwrap();
    (tcp.rto_us, tcp.srtt_us, tcp.rttvar_us) = (203_333, 1, 0);
    facts.jiffies = Some(JiffyClock { jiffies: 4_294_892_084, at_ns: 49_293_328_404 });
    let (write_ns, told_ns) = (49_293_351_488_u64, 52_709_994_902);
    let told = Duration::from_nanos(told_ns - write_ns);
    let hull = model::predict_after(&parameters, &facts, write_ns).hull().unwrap();
    assert!(hull.0 <= told && told <= hull.1, "{hull:?}");
}

#[test]
fn a_sampled_keepalive_timer_gives_the_jiffy() {
    let parameters =
        parameters(&[("fault.kind", "power-off"), ("client.keepalive.enabled", "true")]);
    let mut facts = model::nominal_facts(&parameters, 250);
    let wide = model::predict(&parameters, &facts).windows[0].span.unwrap();
    facts.jiffies = Some(JiffyClock { jiffies: 4_295_000_000, at_ns: 1_000_000_000_000 });
    facts.tcp = Some(TcpFacts {
        timer: 2,
        sampled_at_ns: 1_000_201_000_000,
        timer_expires_ms: 7_200_000 - 200,
        last_ack_recv_ms: 200,
        last_data_recv_ms: 200,
        ..facts.tcp.unwrap()
    });
    let (earliest, latest) = model::predict(&parameters, &facts).windows[0].span.unwrap();
    assert!(
        latest.saturating_sub(earliest) < Duration::from_millis(13),
        "{earliest:?}..{latest:?}"
    );
    assert!(wide.0 <= earliest && latest <= wide.1);
}

/// An idle client whose last data a closed window holds back, from the moment the window closes.
fn closed_window(sets: &[(&str, &str)], hz: u32) -> model::Prediction {
    let sets = [&[("client.fills_window", "true"), ("server.reads", "false")], sets].concat();
    predict(&sets, hz)
}

/// Linux 6.18 at HZ=250 with an RTO of 208 ms, 1 s after the window had closed: the peer lives, and
/// does not answer the second probe, which comes less than half a second after the first.
#[test]
fn a_living_peer_with_a_closed_window_is_given_up_after_one_unanswered_probe() {
    let living = |retries2| {
        let sets = [("sysctl.tcp_retries2", retries2), ("fault.after", "1ms")];
        closed_window(&sets, 250)
    };
    let [given_up] = &living("1").windows[..] else { panic!("{:?}", living("1")) };
    assert_eq!((given_up.outcome, given_up.window_probes), (Outcome::TIMED_OUT, Some(2)));
    let (earliest, latest) = given_up.span.unwrap();
    // An RTO of 204 to 216 ms, then its double twice, each in its slot of the wheel.
    assert!(earliest.as_millis() > 1_000 && latest.as_millis() < 1_160, "{earliest:?}–{latest:?}");
    assert_eq!(living("2").windows[0].outcome, Outcome::None);
    let answers = [("server.sysctl.tcp_invalid_ratelimit", "0"), ("sysctl.tcp_retries2", "1")];
    assert_eq!(closed_window(&answers, 250).windows[0].outcome, Outcome::None);
}

/// Two weeks of answered probes, of which the model looks at a few, end as half an hour of them does:
/// at the first slot past the user timeout.
#[test]
fn a_long_user_timeout_ends_a_closed_window_as_a_short_one_does() {
    for (timeout, at_s) in [("30m", 1_800.0), ("24h", 86_400.0), ("14d", 1_209_600.0)] {
        let sets = [("client.user_timeout", timeout), ("fault.after", "1ms"), ("path.rtt", "30ms")];
        let (earliest, latest) = closed_window(&sets, 250).hull().unwrap();
        let after_s = earliest.as_secs_f64() - at_s;
        assert!((0.2..0.4).contains(&after_s), "{timeout}: {earliest:?}");
        // The last timer is cut to what is left of the timeout, and that falls into some slot; the
        // RTO, and with it the first probe, is known to 12 ms.
        assert!(
            latest.abs_diff(earliest).as_secs_f64() < 2.12,
            "{timeout}: {earliest:?}–{latest:?}"
        );
    }
}

#[test]
fn unanswered_window_probes_are_counted() {
    for hz in [100, 250, 300, 1000] {
        let mut last = Duration::ZERO;
        for retries in [1, 2, 3, 7, 15, 40] {
            let text = retries.to_string();
            let sets = [
                ("sysctl.tcp_retries2", text.as_str()),
                ("fault.kind", "power-off"),
                ("fault.after", "1ms"),
            ];
            let prediction = closed_window(&sets, hz);
            let counts: Vec<_> = prediction.windows.iter().map(|w| w.window_probes).collect();
            assert_eq!(counts, [Some(retries)], "HZ={hz}");
            let (earliest, _) = prediction.hull().unwrap();
            assert!(earliest > last, "HZ={hz} retries2={retries}");
            last = earliest;
            let jiffy = Duration::from_secs(1) / hz;
            for step in &prediction.schedule {
                let early = jiffy + model::allowance::EARLY;
                assert!(step.earliest + early >= step.nominal, "HZ={hz} {step:?}");
            }
        }
    }
}

#[test]
fn settings_that_change_count_from_the_next_timer_on() {
    let sets = |retries2, later| {
        [
            &SENDING[..],
            &[("sysctl.tcp_retries2", retries2), ("later.sysctl.tcp_retries2", later)],
            &[("later.after", "2s")],
        ]
        .concat()
    };
    let plain =
        |retries2| predict(&[&SENDING[..], &[("sysctl.tcp_retries2", retries2)]].concat(), 250);
    // Raised before the end: as if it had always been so. Lowered: at the next timeout.
    assert_eq!(predict(&sets("5", "7"), 250).hull(), plain("7").hull());
    let lowered = predict(&sets("8", "2"), 250).hull().unwrap();
    assert_eq!(lowered, plain("2").hull().unwrap());
    // What a connection has made its own stays; what is not known to be either is not predicted.
    let kept = [&SENDING[..], &[("later.sysctl.tcp_rto_max_ms", "1000")]].concat();
    assert_eq!(predict(&kept, 250).hull(), predict(&SENDING, 250).hull());
    let odd = [&SENDING[..], &[("later.sysctl.tcp_frto", "0")]].concat();
    assert!(predict(&odd, 250).unknown.is_some());
}

#[test]
fn a_second_write_changes_nothing_once_the_first_is_sent_again() {
    let with = |second| predict(&[&SENDING[..], &[("client.second_write", second)]].concat(), 250);
    let (alone, later) = (predict(&SENDING, 250), with("1s"));
    // But for the parts that a jiffy is divided into.
    let ends = [&alone, &later].map(|prediction| prediction.hull().unwrap());
    assert!(ends[0].0.abs_diff(ends[1].0) < Duration::from_millis(1));
    assert!(ends[0].1.abs_diff(ends[1].1) < Duration::from_millis(1));
    assert_eq!(alone.windows[0].retransmits, later.windows[0].retransmits);
    // Before, it brings the tail loss probe forward: that of two segments does not wait for a
    // delayed acknowledgement.
    assert!(with("150ms").schedule[0].latest < alone.schedule[0].earliest);
}

#[test]
fn more_retries_are_never_sooner() {
    for hz in [100, 250, 300, 1000] {
        let mut last = (Duration::ZERO, Duration::ZERO);
        for retries in 0..=40 {
            let retries = retries.to_string();
            let sets = [&SENDING[..], &[("sysctl.tcp_retries2", retries.as_str())]].concat();
            let hull = predict(&sets, hz).hull().unwrap();
            assert!(hull.0 >= last.0 && hull.1 >= last.1, "HZ={hz} retries2={retries}");
            last = hull;
        }
    }
}

/// Facts and parameters of any kind that the command line accepts.
fn anything() -> impl Strategy<Value = (Parameters, Facts, u64)> {
    let choices = (
        prop::sample::select(Topology::ALL),
        prop::sample::select(spec::Family::ALL),
        prop::sample::select(spec::Neighbour::ALL),
        prop::sample::select(spec::Traffic::ALL),
        prop::sample::select(FaultKind::ALL),
        prop::sample::select(spec::Reject::ALL),
        any::<[bool; 16]>(),
    );
    let year = 365 * 86_400_000_u64;
    let times = (
        1_u64..=32_767,
        1_u64..=32_767,
        1_u32..=127,
        1_u64..=i32::MAX as u64,
        1_000_u64..=120_000,
        prop_oneof![0_u64..5_000, 0..=year],
        prop_oneof![1_u64..20_000, 1..=year],
        prop_oneof![0_u64..2_000, 0..=10_000_u64],
    );
    let sysctls = (0_u32..=255, 1_u64..=2_147_483_647, 0_u32..=4, 0_u64..=21_474_836, 0_u64..=255);
    let facts = (
        prop_oneof![Just(100_u32), Just(250), Just(300), Just(1000), 1_u32..=10_000],
        prop::option::of((any::<u32>(), any::<u32>(), any::<u32>(), any::<[u32; 3]>(), 0_u8..=4)),
        prop::option::of((any::<u64>(), any::<u64>())),
        any::<u64>(),
        prop::sample::select(&["6.12.1", "6.18.44", "", "nonsense"][..]),
    );
    let all = (choices, times, sysctls, facts);
    all.prop_filter_map("not a combination that is accepted", |(choices, times, sysctls, facts)| {
        let mut p = Parameters::default();
        let ms = Duration::from_millis;
        let set: [bool; 16];
        (p.topology, p.family, p.neighbour, p.client.traffic, p.fault.kind, p.fault.reject, set) =
            choices;
        p.client.keepalive.enabled = set[0];
        p.client.keepalive.idle = set[1].then(|| Duration::from_secs(times.0));
        p.client.keepalive.interval = set[1].then(|| Duration::from_secs(times.1));
        p.client.keepalive.probes = set[1].then_some(times.2);
        p.client.user_timeout = set[2].then(|| ms(times.3));
        p.client.rto_max = set[3].then(|| ms(times.4));
        p.client.heartbeat.interval = ms(times.5.max(10));
        p.client.heartbeat.deadline = ms(times.6.max(10));
        p.fault.after = ms(times.5);
        p.fault.duration = Some(ms(times.6));
        p.path.rtt = ms(times.7);
        p.server.reads = !set[4];
        p.server.inherited = set[5];
        p.fault.new_mac = set[6];
        p.client.fills_window = set[8];
        p.server.fills_window = set[9];
        p.client.thin_linear_timeouts = set[10];
        p.client.rto_min = set[11].then(|| Duration::from_micros(times.7));
        p.path.rto_min = set[12].then(|| ms(times.4));
        p.client.second_write = set[13].then(|| ms(times.6));
        p.client.linger = set[14].then(|| Duration::from_secs(times.0));
        if set[15] {
            p.later.after = ms(times.6);
            p.later.sysctl.insert("tcp_retries2".into(), sysctls.4.to_string());
            p.later.sysctl.insert("tcp_keepalive_intvl".into(), sysctls.3.to_string());
        }
        let mut sysctl = |name: &str, value: String| p.sysctl.insert(name.into(), value);
        sysctl("tcp_retries2", sysctls.0.to_string());
        if set[7] {
            sysctl("tcp_rto_min_us", sysctls.1.to_string());
            sysctl("tcp_early_retrans", sysctls.2.to_string());
            sysctl("tcp_keepalive_time", sysctls.3.to_string());
            sysctl("tcp_keepalive_intvl", sysctls.3.to_string());
            sysctl("tcp_keepalive_probes", sysctls.4.to_string());
            sysctl("tcp_thin_linear_timeouts", (sysctls.4 % 2).to_string());
        }
        let (hz, tcp, jiffies, write_ns, kernel) = facts;
        let mut facts = model::nominal_facts(&p, hz);
        facts.kernel = kernel.into();
        if set[6] {
            facts.tcp = tcp.map(|(rto_us, srtt_us, at, more, timer)| TcpFacts {
                rto_us,
                srtt_us,
                snd_cwnd: more[0] % 1000,
                sampled_at_ns: u64::from(at) * 1000,
                last_data_recv_ms: more[1] % 10_000,
                last_ack_recv_ms: more[2] % 10_000,
                timer_expires_ms: more[0],
                timer,
                backoff: (more[1] % 40) as u8,
                probes: (more[2] % 256) as u8,
                window_probed_at_ns: set[7].then_some(u64::from(more[0]) * 1000),
                options: 7,
                ..TcpFacts::default()
            });
            facts.jiffies = jiffies.map(|(jiffies, at_ns)| JiffyClock { jiffies, at_ns });
        }
        p.validate().is_ok().then_some((p, facts, write_ns))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// No input makes the model panic, and whatever it says is well formed.
    #[test]
    fn anything_is_predicted_or_said_to_be_unknown((parameters, facts, write_ns) in anything()) {
        for prediction in [
            model::predict(&parameters, &facts),
            model::predict_after(&parameters, &facts, write_ns),
        ] {
            prop_assert_eq!(prediction.windows.is_empty(), prediction.unknown.is_some());
            prop_assert!(!prediction.why.is_empty());
            for window in &prediction.windows {
                prop_assert_eq!(window.span.is_none(), window.outcome == Outcome::None);
                if let Some((earliest, latest)) = window.span {
                    prop_assert!(earliest <= latest);
                    let shares: Duration = window.width.iter().map(|share| share.by).sum();
                    prop_assert!(latest.saturating_sub(earliest) <= shares, "{:?}", window);
                }
            }
            for step in &prediction.schedule {
                prop_assert!(step.earliest <= step.latest);
            }
            let json = serde_json::to_string(&prediction).unwrap();
            let back: model::Prediction = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back, prediction);
        }
    }

    /// No timer is early: the textbook's time, less a jiffy for the phase of the start.
    #[test]
    fn no_retransmission_is_earlier_than_the_textbook(
        hz in prop_oneof![Just(100_u32), Just(250), Just(300), Just(1000)],
        retries in 0_u32..=20,
        rtt_ms in 0_u64..3_000,
    ) {
        let (retries, rtt) = (retries.to_string(), format!("{rtt_ms}ms"));
        let sets = [&SENDING[..], &[("sysctl.tcp_retries2", retries.as_str()), ("path.rtt", rtt.as_str())]].concat();
        let prediction = predict(&sets, hz);
        let jiffy = Duration::from_secs(1) / hz;
        for step in &prediction.schedule {
            let early = jiffy + model::allowance::EARLY;
            prop_assert!(step.earliest + early >= step.nominal, "{:?}", step);
        }
    }
}
