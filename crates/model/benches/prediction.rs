//! How long one prediction takes: where the jiffy clock is known, as in a trial, and where it is not, as
//! for `halfopen predict`.

#[path = "../tests/common/mod.rs"]
mod common;

use common::parameters;
use criterion::{Criterion, criterion_group, criterion_main};
use spec::facts::JiffyClock;
use std::hint::black_box;

/// A name, and the settings that differ from the defaults.
const SETTINGS: &[(&str, &[(&str, &str)])] = &[
    ("keepalive, defaults", &[("fault.kind", "power-off"), ("client.keepalive.enabled", "true")]),
    ("one write, retries2 = 15", &[("fault.kind", "power-off"), ("client.traffic", "one-write")]),
    (
        "an ICMP loop",
        &[
            ("fault.kind", "reject"),
            ("fault.reject", "host-unreachable"),
            ("topology", "router"),
            ("client.traffic", "one-write"),
        ],
    ),
    ("a stream", &[("fault.kind", "power-off"), ("client.traffic", "stream")]),
    (
        "a script",
        &[
            ("fault.kind", "power-off"),
            ("client.traffic", "script"),
            ("client.script", "write 100; shutdown"),
        ],
    ),
    (
        "a script between whose calls keepalive fires",
        &[
            ("fault.kind", "process-freeze"),
            ("fault.duration", "33s"),
            ("client.traffic", "script"),
            ("client.script", "write 10; wait 90s; write 10"),
            ("client.keepalive.enabled", "true"),
            ("client.keepalive.idle", "3s"),
            ("client.keepalive.interval", "5s"),
        ],
    ),
    (
        "a slow script",
        &[
            ("fault.kind", "power-off"),
            ("neighbour", "learned"),
            ("client.traffic", "script"),
            ("client.script", "wait 12s; request 100 2s; wait 12s; shutdown"),
            ("client.keepalive.enabled", "true"),
            ("client.keepalive.interval", "3s"),
            ("client.user_timeout", "10m"),
        ],
    ),
];

fn predictions(criterion: &mut Criterion) {
    for (name, sets) in SETTINGS {
        let sets: Vec<_> =
            sets.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let parameters = parameters(&sets);
        let nominal = model::nominal_facts(&parameters, 250);
        criterion.bench_function(&format!("{name}, any phase"), |bencher| {
            bencher.iter(|| model::predict(black_box(&parameters), &nominal));
        });
        let mut known = nominal.clone();
        known.jiffies = Some(JiffyClock { jiffies: 4_295_642_804, at_ns: 3_002_280_000_000 });
        if let Some(tcp) = &mut known.tcp {
            tcp.sampled_at_ns = 3_002_400_000_000;
            (tcp.last_data_recv_ms, tcp.last_ack_recv_ms) = (200, 200);
            tcp.timer = 2;
            tcp.timer_expires_ms = 7_200_000 - 200;
        }
        criterion.bench_function(&format!("{name}, known phase"), |bencher| {
            let write_ns = 3_002_400_500_000;
            bencher.iter(|| model::predict_after(black_box(&parameters), &known, write_ns));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = predictions
}
criterion_main!(benches);
