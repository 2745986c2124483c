//! A web server's own timer. It is the program's, not the kernel's: nginx arms it when it has
//! answered a request (`ngx_http_set_keepalive`, src/http/ngx_http_request.c), a new request takes
//! it away, and at its end nginx closes the socket; then its kernel does what it does for any close.
//!
//! nginx sleeps in `epoll_wait` for what is left of the time, whole milliseconds, and the kernel
//! never wakes it early. What makes it late:
//!
//! - the slack that `epoll_wait` gives its timer, so that wake-ups can be joined: a thousandth of the
//!   time, five thousandths for a process that was made nice, 100 ms at most
//!   (`select_estimate_accuracy`, fs/select.c). Nobody knows here whether it was;
//! - the clock by which nginx then asks whether the time has come: `CLOCK_MONOTONIC_COARSE`, which
//!   moves once a jiffy, in whole milliseconds (`ngx_time_update`, src/core/ngx_times.c). Where the
//!   time is no multiple of a jiffy, that may send it to sleep for another.
//!
//! By that clock nginx also computes the time anew whenever something else wakes it, from a moment
//! that may be a jiffy and a millisecond past: then it can be that much early.

use crate::allowance;
use crate::closing;
use crate::conclude::{lives_on, reference, unknown};
use crate::crash::round_trip;
use crate::laboratory::SLOP;
use crate::prediction::{Prediction, Window};
use crate::tick::Hz;
use crate::width::{self, Cause};
use spec::{Facts, FaultKind, Outcome, Parameters, Program, Reference, Traffic};
use std::time::Duration;

/// What the client is told by the timer of a web server that answers it; `None` where the fault
/// takes the server away before.
pub(crate) fn predict_client(parameters: &Parameters, facts: &Facts) -> Option<Prediction> {
    let fault = &parameters.fault;
    if parameters.server.program != Program::Nginx {
        return None;
    }
    match (fault.kind, fault.duration, parameters.client.traffic) {
        (FaultKind::None, ..) => Some(closes(parameters, facts)),
        (FaultKind::ProcessFreeze, None, _) => Some(lives_on(
            parameters,
            "a stopped web server does not handle its expired timer; its kernel goes on \
             acknowledging"
                .into(),
        )),
        (FaultKind::ProcessFreeze, Some(duration), Traffic::Idle) => {
            Some(closes_late(parameters, facts, duration))
        }
        (FaultKind::ProcessFreeze, Some(_), _) => Some(unknown(
            parameters,
            "whether the web server, once it runs again, handles the request or its expired timer \
             first is not known"
                .into(),
        )),
        _ => None,
    }
}

/// Nothing disturbs the timer.
fn closes(parameters: &Parameters, facts: &Facts) -> Prediction {
    let keeps_for = parameters.nginx.keeps_for();
    // After a write of the client's, the request is on its way, and so is the FIN.
    let (fastest, slowest) = match parameters.client.traffic {
        Traffic::Idle => (Duration::ZERO, Duration::ZERO),
        _ => (parameters.path.rtt, round_trip(parameters, facts)),
    };
    let earliest = (keeps_for + fastest).saturating_sub(allowance::EARLY);
    let latest = keeps_for + slowest + late(keeps_for, Hz::new(facts.hz));
    let causes = [
        (Cause::RoundTrip, slowest.saturating_sub(fastest)),
        (Cause::ProgramTimer, its_own(keeps_for, Hz::new(facts.hz))),
    ];
    told(
        (parameters, facts),
        (earliest, latest),
        causes,
        format!(
            "nginx's own timer, not the kernel's, closes the connection keepalive_timeout, {}, \
             after the last request; epoll_wait may wake it late, never early",
            spec::duration::show(keeps_for)
        ),
    )
}

/// The program is stopped, and goes on at some time after `fault.after` and `duration`.
fn closes_late(parameters: &Parameters, facts: &Facts, duration: Duration) -> Prediction {
    let hz = Hz::new(facts.hz);
    let keeps_for = parameters.nginx.keeps_for();
    let runs = parameters.fault.after + duration;
    let slop = SLOP + allowance::late(hz);
    let early = clock_step(hz) + allowance::EARLY;
    let earliest = keeps_for.saturating_sub(early).max(runs.saturating_sub(allowance::EARLY));
    let latest = (keeps_for + late(keeps_for, hz)).max(runs + slop);
    let why = if runs > keeps_for {
        "the stopped web server's timer has ended when it runs again: it closes at once"
    } else {
        "the web server runs again before its timer ends, and computes by a coarse clock what is \
         left of it"
    };
    let whole = latest.saturating_sub(earliest);
    let own = its_own(keeps_for, hz) + early;
    let causes = [(Cause::ProgramTimer, own), (Cause::Call, whole.saturating_sub(own))];
    told((parameters, facts), (earliest, latest), causes, why.into())
}

fn told(
    (parameters, facts): (&Parameters, &Facts),
    span: (Duration, Duration),
    causes: [(Cause, Duration); 2],
    why: String,
) -> Prediction {
    let window = Window::new(Outcome::Eof, Some(span))
        .because(causes.into_iter().chain(width::allowed(Hz::new(facts.hz))));
    Prediction::of(reference(parameters), vec![Window { retransmits: Some(0), ..window }], why)
}

/// The web server is the survivor: its timer closes a connection whose other end is
/// gone, and its kernel goes on alone.
pub(crate) fn predict_left_behind(parameters: &Parameters, facts: &Facts) -> Prediction {
    let mut closing = parameters.clone();
    closing.client.program = Program::Halfopen;
    closing.client.traffic = Traffic::Close;
    let mut prediction = closing::predict(&closing, facts, None);
    let keeps_for = parameters.nginx.keeps_for();
    let earliest = keeps_for.saturating_sub(allowance::EARLY);
    let latest = keeps_for + late(keeps_for, Hz::new(facts.hz));
    for window in &mut prediction.windows {
        window.span = window.span.map(|(from, to)| (from + earliest, to + latest));
        let own = latest.saturating_sub(earliest);
        window.width.extend(width::shares([(Cause::ProgramTimer, own)]));
    }
    for step in &mut prediction.schedule {
        step.earliest += earliest;
        step.latest += latest;
        step.nominal += keeps_for;
    }
    prediction.reference = Reference::LastRequest;
    prediction.why = format!(
        "nginx's own timer closes the connection keepalive_timeout, {}, after the last request, \
         whether its client is there or not; then its kernel goes on alone: {}",
        spec::duration::show(keeps_for),
        prediction.why
    );
    prediction
}

/// How late nginx may act on a timer.
fn late(time: Duration, hz: Hz) -> Duration {
    its_own(time, hz) + allowance::late(hz)
}

/// What of that is nginx's own, and the kernel's for it.
fn its_own(time: Duration, hz: Hz) -> Duration {
    const SLACK_MOST: Duration = Duration::from_millis(100);
    (time / 200).min(SLACK_MOST) + clock_step(hz)
}

/// How far the clock that nginx reads may be behind.
fn clock_step(hz: Hz) -> Duration {
    hz.duration(1) + Duration::from_millis(1)
}

#[cfg(test)]
mod tests {
    use crate::{nominal_facts, predict};
    use spec::{Outcome, Parameters, Reference, settings};
    use std::time::Duration;

    fn with(settings: &[(&str, &str)]) -> Parameters {
        let mut parameters = Parameters::default();
        for (key, value) in settings {
            settings::apply(&mut parameters, key, value).unwrap();
        }
        assert_eq!(parameters.validate(), Ok(()));
        parameters
    }

    fn window(settings: &[(&str, &str)]) -> (Outcome, Reference, Duration, Duration) {
        let parameters = with(settings);
        let prediction = predict(&parameters, &nominal_facts(&parameters, 250));
        assert_eq!(prediction.unknown, None);
        let (earliest, latest) = prediction.hull().unwrap_or_default();
        (prediction.windows[0].outcome, prediction.reference, earliest, latest)
    }

    const NGINX: (&str, &str) = ("server.program", "nginx");
    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn it_closes_when_its_timer_ends_and_not_before() {
        for (timeout, latest) in [("1s", 1_020), ("3s", 3_030), ("30m", 1_800_120)] {
            let (outcome, reference, from, to) =
                window(&[NGINX, ("nginx.keepalive_timeout", timeout)]);
            let nominal = spec::duration::parse(timeout).unwrap();
            assert_eq!((outcome, reference), (Outcome::Eof, Reference::LastActivity));
            // Half a millisecond is what clocks are compared to.
            assert!(from + MS(1) > nominal && from <= nominal, "{from:?}");
            assert!(to > nominal && to < MS(latest), "{to:?}");
        }
    }

    #[test]
    fn its_own_default_is_75_seconds() {
        let (.., from, _) = window(&[NGINX]);
        assert!(from + MS(1) > MS(75_000) && from <= MS(75_000), "{from:?}");
    }

    #[test]
    fn a_new_request_counts_and_the_way_there_and_back_too() {
        let settings = [NGINX, ("client.traffic", "one-write"), ("path.rtt", "100ms")];
        let (outcome, reference, from, _) = window(&settings);
        assert_eq!((outcome, reference), (Outcome::Eof, Reference::FirstWrite));
        assert!(from + MS(1) > MS(75_100), "{from:?}");
    }

    #[test]
    fn a_stopped_one_closes_when_it_runs_again() {
        let freeze = ("fault.kind", "process-freeze");
        let timeout = ("nginx.keepalive_timeout", "2s");
        assert_eq!(window(&[NGINX, timeout, freeze]).0, Outcome::None);
        let (.., from, to) = window(&[NGINX, timeout, freeze, ("fault.duration", "5s")]);
        assert!(from > MS(5_190) && to < MS(5_400), "{from:?} {to:?}");
        let (.., from, to) = window(&[NGINX, timeout, freeze, ("fault.duration", "500ms")]);
        assert!(from > MS(1_990) && to < MS(2_040), "{from:?} {to:?}");
    }

    #[test]
    fn a_host_without_power_is_not_its_business() {
        assert_eq!(window(&[NGINX, ("fault.kind", "power-off")]).0, Outcome::None);
    }

    #[test]
    fn left_behind_it_closes_and_its_kernel_goes_on() {
        let settings = [("client.program", "nginx"), ("fault.kind", "power-off")];
        let (outcome, reference, from, to) = window(&settings);
        assert_eq!((outcome, reference), (Outcome::Released, Reference::LastRequest));
        // tcp_orphan_retries = 0 stands for 8: 102.2 s.
        assert!(from > MS(75_000 + 102_200) && to < MS(75_000 + 110_000), "{from:?} {to:?}");
        let short = [
            settings[0],
            settings[1],
            ("sysctl.tcp_orphan_retries", "3"),
            ("nginx.keepalive_timeout", "3s"),
        ];
        let (.., from, to) = window(&short);
        assert!(from > MS(3_000 + 6_000) && to < MS(3_000 + 7_000), "{from:?} {to:?}");
    }
}
