//! A path MTU black hole: packets that are too long vanish, and nobody is told. Which of a program's
//! calls meet it, and what can be said of those.

use crate::conclude::{lives_on, unknown};
use crate::kernel::{Kernel, server_sysctl};
use crate::prediction::{Prediction, Window};
use crate::rto;
use spec::experiment::BLOCK;
use spec::script::{Script, Step};
use spec::{Drops, Facts, Outcome, Parameters, Program, Sieve, Traffic};
use std::time::Duration;

/// The prediction where calls meet the black hole, `predicted` by going through them; `None`: nothing
/// is too long.
pub(crate) fn predict(
    parameters: &Parameters,
    facts: &Facts,
    predicted: impl FnOnce() -> Prediction,
) -> Option<Prediction> {
    let cfg = Kernel::new(parameters, facts);
    let meets = meets(&cfg, parameters, parameters.fault.sieve()?, facts);
    let mut prediction = match meets {
        Meets::Nothing => return None,
        Meets::LongAnswers => lives_on(parameters, ANSWERS_ARE_LOST.into()),
        Meets::Everything | Meets::ShortEnd => predicted(),
        Meets::Unknown(reason) => unknown(parameters, reason.into()),
    };
    // Once some segments pass, how many are sent again with one of them is up to the congestion
    // control.
    let counted = meets == Meets::Everything;
    for window in &mut prediction.windows {
        if !counted || window.outcome == Outcome::None {
            window.retransmits = None;
        }
    }
    let lives = |window: &Window| window.outcome == Outcome::None;
    let shrinks = cfg.mtu_probing.on && counted && parameters.fault_duration().is_none();
    if shrinks && prediction.unknown.is_none() && prediction.windows.iter().all(lives) {
        prediction.why = SHRINKS.into();
    }
    Some(prediction)
}

/// Whether nothing that the programs send is too long.
pub(crate) fn lets_all_pass(parameters: &Parameters, facts: &Facts) -> bool {
    let sieve = parameters.fault.sieve();
    sieve.is_some_and(|sieve| {
        meets(&Kernel::new(parameters, facts), parameters, sieve, facts) == Meets::Nothing
    })
}

/// What a program's calls meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meets {
    /// Everything that it sends passes.
    Nothing,
    /// What it sends passes, but what comes back may be too long.
    LongAnswers,
    /// Nothing of a long call passes.
    Everything,
    /// The end of the last call is short enough to pass.
    ShortEnd,
    /// Why it cannot be said.
    Unknown(&'static str),
}

fn meets(cfg: &Kernel, parameters: &Parameters, sieve: Sieve, facts: &Facts) -> Meets {
    let Drops::Longer(mtu) = sieve.drops else { return Meets::Nothing };
    if parameters.client.fills_window {
        // What waits for the window stays, and probes are short.
        return Meets::Nothing;
    }
    let size = Size { mss: cfg.mss, longest: mtu.saturating_sub(cfg.headers) };
    let script = script(cfg, parameters);
    let is_lost = |bytes| sieve.to_lost && size.is_long(bytes);
    if sieve.to_survivor && script.writes() {
        if parameters.server.program != Program::Halfopen && !calls(&script).all(is_lost) {
            return if calls(&script).any(is_lost) {
                Meets::Unknown(PASSES_BEHIND)
            } else {
                long_answers(cfg, parameters, facts)
            };
        }
        // The peer answers as much as it is asked.
        let is_long = |step: &Step| matches!(step, Step::Request(bytes, _) if size.is_long(*bytes));
        let answers = matches!(
            parameters.client.traffic,
            Traffic::OneWrite | Traffic::Stream | Traffic::Heartbeat
        );
        let long_answer = answers && size.is_long(BLOCK) && !sieve.to_lost;
        if script.steps.iter().any(is_long) || long_answer {
            return Meets::Unknown(LONG_ANSWER);
        }
    }
    if !sieve.to_lost {
        return Meets::Nothing;
    }
    let cwnd = facts.tcp.as_ref().map_or(10, |tcp| tcp.snd_cwnd).max(1);
    calls_meet(cfg, &script, &size, cwnd)
}

fn script(cfg: &Kernel, parameters: &Parameters) -> Script {
    let client = &parameters.client;
    match client.traffic {
        Traffic::Heartbeat => Script { steps: vec![Step::Write(BLOCK)], repeats: true },
        Traffic::Script if client.program == Program::Halfopen => {
            client.script.clone().unwrap_or_default()
        }
        Traffic::Script => joined(cfg, &client.script.clone().unwrap_or_default()),
        _ => parameters.script().unwrap_or_default(),
    }
}

/// What was observed is segments: what follows a full one is part of the same call.
fn joined(cfg: &Kernel, observed: &Script) -> Script {
    let mut steps: Vec<Step> = Vec::new();
    for step in &observed.steps {
        match (steps.last_mut(), step) {
            (Some(Step::Write(before)), Step::Write(bytes)) if *before % cfg.mss == 0 => {
                *before += bytes;
            }
            _ => steps.push(*step),
        }
    }
    Script { steps, repeats: observed.repeats }
}

/// What a command of the user's answers, nobody knows. Its kernel acknowledges what it gets with that
/// answer, and when it gets it again, at once; and gives the connection up in its own time.
fn long_answers(cfg: &Kernel, parameters: &Parameters, facts: &Facts) -> Meets {
    let retries2 = server_sysctl(parameters, facts, "tcp_retries2").unwrap_or(15).min(255) as u32;
    let lives = Duration::from_millis(rto::model_timeout_ms(cfg, retries2));
    match parameters.deadline {
        Some(deadline) if deadline < lives => Meets::LongAnswers,
        _ => Meets::Unknown(GIVES_UP),
    }
}

/// How many bytes each call sends.
fn calls(script: &Script) -> impl Iterator<Item = u32> {
    script.steps.iter().filter_map(|step| match step {
        Step::Wait(_) => None,
        Step::Write(bytes) | Step::Request(bytes, _) => Some(*bytes),
        Step::Shutdown | Step::Close => Some(0),
    })
}

fn calls_meet(cfg: &Kernel, script: &Script, size: &Size, cwnd: u32) -> Meets {
    let calls = || calls(script);
    let is_long = |bytes: u32| size.is_long(bytes);
    let Some(first) = calls().position(is_long) else { return Meets::Nothing };
    let probes = cfg.mtu_probing.from_start && cwnd >= PROBES_FROM_CWND;
    if probes && calls().any(|bytes| bytes >= PROBES_FROM_SEGMENTS * cfg.mss) {
        return Meets::Unknown(PROBES);
    }
    if script.steps.iter().any(|step| matches!(step, Step::Shutdown | Step::Close)) {
        return Meets::Unknown(FIN_PASSES);
    }
    // A tail loss probe sends one more segment than the congestion window has room for.
    let is_sent = |bytes: u32| bytes.div_ceil(cfg.mss) <= cwnd + 1;
    let ends_short = |bytes: u32| is_long(bytes) && size.ends_short(bytes) && is_sent(bytes);
    let all_long = calls().skip(first).all(|bytes| is_long(bytes) && !ends_short(bytes));
    if all_long && !(script.repeats && first > 0) {
        return Meets::Everything;
    }
    // What passes behind what was lost has consequences that depend on when it is sent.
    let is_last = first + 1 == calls().count() && !script.repeats;
    match script.steps.last() {
        Some(Step::Write(bytes) | Step::Request(bytes, _)) if is_last && is_alone(script) => {
            if bytes.div_ceil(cfg.mss) > cwnd {
                return Meets::Unknown(SHORT_LATER);
            }
            Meets::ShortEnd
        }
        _ => Meets::Unknown(PASSES_BEHIND),
    }
}

/// Whether what comes before the last call is acknowledged by then.
fn is_alone(script: &Script) -> bool {
    match &script.steps[..] {
        [.., Step::Wait(time), _] => *time >= ACKNOWLEDGED,
        [_] | [.., Step::Request(..), _] => true,
        _ => false,
    }
}

/// What is too long.
struct Size {
    mss: u32,
    /// The most data of a packet that passes.
    longest: u32,
}

impl Size {
    /// Whether a call makes a packet that is too long.
    fn is_long(&self, bytes: u32) -> bool {
        bytes.min(self.mss) > self.longest
    }

    /// Whether its last packet passes.
    fn ends_short(&self, bytes: u32) -> bool {
        let last = bytes % self.mss;
        last > 0 && last <= self.longest
    }
}

/// `tcp_mtu_probe` (net/ipv4/tcp_output.c) needs so large a congestion window, and more data than a
/// probe and four segments.
const PROBES_FROM_CWND: u32 = 11;
const PROBES_FROM_SEGMENTS: u32 = 4;
/// A delayed acknowledgement takes 200 ms at most (`TCP_DELACK_MAX`).
const ACKNOWLEDGED: Duration = Duration::from_millis(300);
const ANSWERS_ARE_LOST: &str = "everything that it sends passes and is acknowledged; what comes back \
                                and is too long does not arrive";
const SHRINKS: &str = "after retransmissions for as long as tcp_retries1 says the kernel takes the path \
                       for a black hole, and makes its segments shorter until they pass \
                       (tcp_mtu_probing)";
const LONG_ANSWER: &str = "an answer of the server's is too long for the path, and with it the \
                           acknowledgement that it carries is lost: what its kernel sends again is not \
                           modelled";
const GIVES_UP: &str = "what the server's program answers may be too long for the path, and when its \
                        kernel gives the connection up is not known: set a deadline before that";
const PROBES: &str = "with `tcp_mtu_probing = 2` and so large a congestion window the kernel tries longer \
                      segments, of which one may be lost";
const FIN_PASSES: &str = "the FIN is short enough to pass, and comes behind data that was lost: what the \
                          other kernel makes of it is not modelled";
const PASSES_BEHIND: &str = "something short enough to pass is sent behind data that was lost, and what \
                             follows depends on when that is";
const SHORT_LATER: &str = "the congestion window holds the short end of the data back, and when it lets \
                           that pass is not modelled";

#[cfg(test)]
mod tests {
    use crate::{nominal_facts, predict};
    use spec::{Outcome, Parameters, settings};

    fn outcomes(set: &[(&str, &str)]) -> Result<Vec<Outcome>, String> {
        let mut parameters = Parameters::default();
        let given = [
            ("fault.kind", "mtu"),
            ("fault.mtu", "1400"),
            ("client.traffic", "script"),
            ("sysctl.tcp_retries2", "5"),
        ];
        for (key, value) in given.iter().chain(set) {
            settings::apply(&mut parameters, key, value).unwrap();
        }
        let prediction = predict(&parameters, &nominal_facts(&parameters, 250));
        // An acknowledgement that was late makes the RTO a jiffy longer, and two windows.
        let mut outcomes: Vec<_> = prediction.windows.iter().map(|window| window.outcome).collect();
        outcomes.dedup();
        prediction.unknown.map_or(Ok(outcomes), Err)
    }

    #[test]
    fn what_is_short_passes_and_what_is_long_is_never_acknowledged() {
        let [none, timed_out] =
            [Outcome::None, Outcome::TIMED_OUT].map(|outcome| Ok(vec![outcome]));
        for (script, expected) in [
            ("write 1348", &none),
            ("write 1349", &timed_out),
            ("request 1348 1s", &none),
            ("write 100; wait 1s; write 2896", &timed_out),
            ("write 20000", &timed_out),
            ("write 4000", &timed_out),
        ] {
            assert_eq!(&outcomes(&[("client.script", script)]), expected, "{script}");
        }
        let ipv6 = [("client.script", "write 1348"), ("family", "ipv6")];
        assert_eq!(outcomes(&ipv6), timed_out, "its header is longer");
        let back = [("client.script", "write 4000"), ("fault.direction", "to-client")];
        assert_eq!(outcomes(&back), none);
        let healed = [("client.script", "write 4000"), ("fault.duration", "5s")];
        assert_eq!(outcomes(&healed), none);
    }

    #[test]
    fn probing_makes_segments_shorter_after_retries1_unless_retries2_comes_first() {
        for (probing, mtu, retries2, saves) in [
            ("0", "1400", "5", false),
            ("1", "1400", "5", true),
            // 1024 bytes at 3 s, 512 a timeout later.
            ("1", "1076", "5", true),
            ("1", "1075", "4", false),
            ("1", "600", "5", false),
            ("1", "600", "8", true),
            ("2", "600", "5", true),
            ("1", "1400", "3", false),
        ] {
            let set = [
                ("client.script", "write 2896"),
                ("sysctl.tcp_mtu_probing", probing),
                ("fault.mtu", mtu),
                ("sysctl.tcp_retries2", retries2),
            ];
            let lives = outcomes(&set).unwrap() == [Outcome::None];
            assert_eq!(lives, saves, "{set:?}");
        }
    }

    /// `tcp_rack_reo_wnd`: a quarter of the shortest round trip, rounded down; without it what the peer misses
    /// is lost at once, and the RTO counts from there.
    #[test]
    fn the_reordering_window_is_of_the_shortest_round_trip() {
        let mut parameters = Parameters::default();
        for (key, value) in [
            ("fault.kind", "mtu"),
            ("fault.mtu", "1400"),
            ("client.traffic", "script"),
            ("client.script", "write 4000"),
            ("sysctl.tcp_retries2", "5"),
        ] {
            settings::apply(&mut parameters, key, value).unwrap();
        }
        let first_ms = |min_rtt_us| {
            let mut facts = nominal_facts(&parameters, 250);
            facts.tcp.as_mut().unwrap().min_rtt_us = Some(min_rtt_us);
            predict(&parameters, &facts).schedule[0].earliest.as_millis()
        };
        // At least 2 ms, in whole jiffies and slots.
        assert!(first_ms(4) >= first_ms(3) + 4, "{} {}", first_ms(4), first_ms(3));
    }

    #[test]
    fn what_passes_behind_lost_data_is_unknown() {
        for script in ["write 4000; close", "write 4000; write 100", "request 4000 1s"] {
            assert!(outcomes(&[("client.script", script)]).is_err(), "{script}");
        }
    }
}
