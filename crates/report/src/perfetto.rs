//! A trial's timeline for <https://ui.perfetto.dev>: the JSON trace event format, times in microseconds.

use crate::html::strips;
use crate::json::pretty;
use crate::narrate::{Place, timer_name};
use crate::story::{self, Item};
use crate::trial::Trial;
use crate::words;
use serde_json::{Value, json};
use timeline::Side;

/// Tracks, by the number that the format calls a thread.
const TRIAL: u32 = 1;
const CLIENT: u32 = 2;
const CLIENT_TIMER: u32 = 3;
const WIRE: u32 = 4;
const SERVER: u32 = 5;

/// The trace of a trial: events as instants, states and timers of the sockets as slices.
pub fn trace(trial: &Trial) -> Vec<u8> {
    let first_ns = trial.timeline.events().first().map_or(0, |event| event.at_ns);
    let micros = |at_ns: u64| at_ns.saturating_sub(first_ns) as f64 / 1e3;
    let [watched, other] = words::hosts(&trial.experiment.parameters);
    let timers = format!("{watched}, timer");
    let names = ["trial", watched, &timers, "wire", other];
    let tracks = [TRIAL, CLIENT, CLIENT_TIMER, WIRE, SERVER].into_iter().zip(names);
    let mut events: Vec<Value> = tracks.map(|(track, name)| named(track, name)).collect();
    let mut slice = |track: u32, name: &str, from_ns: u64, to_ns: u64| {
        let (from, to) = (micros(from_ns), micros(to_ns));
        events.push(json!({
            "ph": "X", "pid": 1, "tid": track, "name": name, "ts": from, "dur": to - from
        }));
    };
    for (side, track) in [(Side::Client, CLIENT), (Side::Server, SERVER)] {
        for state in strips::states(&trial.timeline, side) {
            slice(track, &state.what, state.from_ns, state.to_ns);
        }
    }
    for timer in strips::timers(&trial.timeline, Side::Client) {
        if let Some(name) = timer_name(timer.what) {
            slice(CLIENT_TIMER, name, timer.from_ns, timer.to_ns);
        }
    }
    for item in story::whole(trial) {
        let (at_ns, track, text) = match item {
            Item::Happened { at_ns, note, .. } => (at_ns, track(note.place), note.text),
            Item::Origin { at_ns, text } => (at_ns, TRIAL, text),
            Item::More(_) => continue,
        };
        events.push(json!({
            "ph": "i", "s": "t", "pid": 1, "tid": track, "name": text, "ts": micros(at_ns)
        }));
    }
    pretty(&json!({
        "displayTimeUnit": "ms",
        "otherData": { "experiment": trial.experiment.name, "verdict": trial.status().to_string() },
        "traceEvents": events,
    }))
}

fn named(track: u32, name: &str) -> Value {
    let args = json!({ "name": name });
    json!({ "ph": "M", "pid": 1, "tid": track, "name": "thread_name", "args": args })
}

fn track(place: Place) -> u32 {
    match place {
        Place::Client => CLIENT,
        Place::ToServer | Place::ToClient => WIRE,
        Place::Server => SERVER,
        Place::Trial => TRIAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn it_has_states_timers_and_events_in_their_tracks() {
        let bytes = trace(&samples::keepalive());
        let trace: Value = serde_json::from_slice(&bytes).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let has = |phase: &str, track: u32, part: &str| {
            events.iter().any(|event| {
                let name = event["name"].as_str().unwrap();
                event["ph"] == phase && event["tid"] == track && name.contains(part)
            })
        };
        assert!(has("i", WIRE, "keepalive probe"), "{trace:#}");
        assert!(has("X", CLIENT, "ESTABLISHED"), "{trace:#}");
        assert!(has("i", TRIAL, "fault"), "{trace:#}");
        let is_timed = |event: &&Value| event["ph"] != "M";
        assert!(events.iter().filter(is_timed).all(|event| event["ts"].as_f64() >= Some(0.0)));
    }
}
