//! From a demand to options.

use crate::case::{AT_ONCE, SOON_IDLE};
use crate::detection::{idle, sending, worst_beginnings};
use crate::options::{Fixed, in_words};
use crate::{Busy, Case, Demand, Detection, Keepalive, Moment, Options, Survived};
use model::Found;
use std::time::Duration;

/// What to choose, or why nothing can be chosen.
#[derive(Debug, Clone)]
pub struct Advice {
    /// What was asked for.
    pub demand: Demand,
    /// The options and what they do; `None`: no options can.
    pub chosen: Option<Chosen>,
    /// Where none can: the reason.
    pub collides: Option<String>,
    /// Where none can: what is possible instead.
    pub nearest: Nearest,
}

/// Options that meet a demand.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The options.
    pub options: Options,
    /// When they find a dead peer out.
    pub detection: Detection,
    /// Which outages they survive.
    pub survived: Survived,
    /// What comes nearest where `TCP_USER_TIMEOUT` cannot be set; `None`: it is not advised.
    pub without: Option<Without>,
}

/// What meets a demand without `TCP_USER_TIMEOUT`, as far as anything does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Without {
    /// Keepalive that ends by its number of probes.
    pub keepalive: Option<Keepalive>,
    /// The sysctl `tcp_retries2` with which a write is given up in time and the outage survived;
    /// `None`: there is none.
    pub retries2: Option<u32>,
    /// When a write is given up without that sysctl.
    pub sending: Found,
}

/// The nearest demands that can be met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Nearest {
    /// The shortest time to find a dead peer with the same outage.
    pub detect: Option<Duration>,
    /// The longest outage with the same time to find a dead peer.
    pub survive: Option<Duration>,
}

/// Options that meet a demand at every phase of the kernel's timers, by what the model says.
pub fn advise(demand: &Demand) -> Advice {
    let mut advice = Advice {
        demand: demand.clone(),
        chosen: None,
        collides: None,
        nearest: Nearest::default(),
    };
    match choose(demand) {
        Ok(options) => {
            let detection = Detection::by(&options, &demand.path);
            let survived = Survived::with(&options, &detection, &demand.path);
            let without = options.user_timeout.map(|_| Without::user_timeout(demand, &options));
            advice.chosen = Some(Chosen { options, detection, survived, without });
        }
        Err(collides) => {
            advice.collides = Some(collides);
            advice.nearest = nearest(demand);
        }
    }
    advice
}

/// The options, or which demands collide.
fn choose(demand: &Demand) -> Result<Options, String> {
    if demand.survive >= demand.detect {
        return Err(format!(
            "an outage of {} cannot be told from a dead peer that must be found within {}",
            in_words(demand.survive),
            in_words(demand.detect)
        ));
    }
    with_rto_max(demand, None).or_else(|why| {
        if demand.busy.may_send() && demand.path.has_rto_max() {
            with_rto_max(demand, Some(SMALLEST_RTO_MAX)).map_err(|_| why)
        } else {
            Err(why)
        }
    })
}

/// The least that `TCP_RTO_MAX_MS` takes (`tcp_sock_set_rto_max_ms`, net/ipv4/tcp.c).
const SMALLEST_RTO_MAX: Duration = Duration::from_secs(1);

fn with_rto_max(demand: &Demand, rto_max: Option<Duration>) -> Result<Options, String> {
    let mut options = Options { rto_max, ..Options::default() };
    if demand.busy.may_send() {
        options.user_timeout = Some(user_timeout(demand, &options)?);
    }
    if demand.busy.may_idle() || demand.path.forgets_after.is_some() {
        options = with_keepalive(demand, &options)?;
    }
    Ok(options)
}

/// The longest user timeout that finds a dead peer in time.
fn user_timeout(demand: &Demand, options: &Options) -> Result<Duration, String> {
    let with = |user_timeout| Options { user_timeout: Some(user_timeout), ..options.clone() };
    let mut timeout = round_down(demand.detect);
    // What the kernel adds: the first retransmission timeout, and its timers' slots.
    while !timeout.is_zero() && !sending(&with(timeout), &demand.path).by(demand.detect) {
        let over = sending(&with(timeout), &demand.path)
            .latest()
            .map_or(STEP, |latest| latest.saturating_sub(demand.detect));
        timeout = round_down(timeout.saturating_sub(over.max(STEP)));
    }
    if timeout.is_zero() {
        return Err(format!(
            "a write that is not acknowledged cannot be given up within {}: the first retransmission \
             alone takes longer",
            in_words(demand.detect)
        ));
    }
    if survives_sending(demand, &with(timeout)) {
        return Ok(timeout);
    }
    Err(format!(
        "each retransmission waits twice as long as the one before: after an outage of {} the next may \
         come later than {} after the write",
        in_words(demand.survive),
        in_words(demand.detect)
    ))
}

const STEP: Duration = Duration::from_millis(50);

/// To a number that people would write: 50 ms, 100 ms from 1 s on, seconds from 10 s on.
fn round_down(duration: Duration) -> Duration {
    let grain = match duration.as_secs() {
        0 => 50,
        1..10 => 100,
        _ => 1000,
    };
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis / grain * grain)
}

fn survives_sending(demand: &Demand, options: &Options) -> bool {
    let at = [AT_ONCE, Moment::Writes(demand.survive / 2)];
    demand.survive.is_zero()
        || at
            .iter()
            .all(|moment| Case::Outage(*moment, demand.survive).is_survived(options, &demand.path))
}

/// Numbers of probes: the more lost packets they bear the better, within reason. Fewer than three
/// are a last resort.
const PROBES: [&[u32]; 3] = [&[5, 4, 3, 6, 8, 10], &[2], &[1]];
/// `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL` (include/net/tcp.h).
const MOST_SECONDS: u64 = 32_767;

/// Keepalive that sends the fewest probes and finds a dead peer in time, and, where it must be there,
/// a user timeout that leaves it its probes.
fn with_keepalive(demand: &Demand, options: &Options) -> Result<Options, String> {
    for numbers in PROBES {
        let found = numbers.iter().filter_map(|probes| longest_idle(demand, options, *probes));
        // Of equals the first.
        let best = found.reduce(|best, other| {
            let idle =
                |options: &Options| options.keepalive.map_or(0, |keepalive| keepalive.idle_s);
            if idle(&other) > idle(&best) { other } else { best }
        });
        if let Some(best) = best {
            return Ok(best);
        }
    }
    let outage = if demand.survive.is_zero() {
        String::new()
    } else {
        format!(" and outlast an outage of {}", in_words(demand.survive))
    };
    Err(format!(
        "keepalive counts in seconds: no idle time, interval and number of probes find a dead peer \
         within {}{}",
        in_words(demand.detect),
        outage
    ))
}

/// With so many probes: the longest idle time.
fn longest_idle(demand: &Demand, options: &Options, probes: u32) -> Option<Options> {
    // An outage takes all probes but the last, which must come after it.
    let gaps = u64::from(probes.saturating_sub(1));
    let outlasts = demand.survive.as_secs().checked_div(gaps).map_or(0, |seconds| seconds + 1);
    let unhurried = demand.detect.as_secs() / 3 / u64::from(probes);
    let interval_s = outlasts.max(unhurried).clamp(1, MOST_SECONDS);
    let interval_s = u32::try_from(interval_s).ok()?;
    halve(demand, |idle_s| {
        let keepalive = Keepalive { idle_s, interval_s, probes };
        // A user timeout ends keepalive in the place of the number of probes (tcp_keepalive_timer).
        let user_timeout = options.user_timeout.map(|most| most.min(keepalive.sum()));
        Options { keepalive: Some(keepalive), user_timeout, ..options.clone() }
    })
}

impl Without {
    fn user_timeout(demand: &Demand, chosen: &Options) -> Self {
        let path = &demand.path;
        let idle = Demand { busy: Busy::Idle, ..demand.clone() };
        let keepalive = chosen.keepalive.and_then(|_| {
            with_keepalive(&idle, &Options::default()).ok().and_then(|options| options.keepalive)
        });
        let with =
            |retries2| Options { user_timeout: None, keepalive: None, retries2, ..chosen.clone() };
        let options = (1..=MOST_RETRIES2).map(|retries2| with(Some(retries2)));
        let in_time = options.take_while(|options| sending(options, path).by(demand.detect));
        let most = in_time.last().filter(|options| survives_sending(demand, options));
        Self {
            keepalive,
            retries2: most.and_then(|options| options.retries2),
            sending: sending(&with(None), path),
        }
    }
}

/// The default of `tcp_retries2`: advice never raises it.
const MOST_RETRIES2: u32 = 15;

/// Keepalive that meets the demand of an idle connection where its other times cannot be set.
pub(crate) fn with_fixed_times(demand: &Demand, fixed: Fixed) -> Option<Keepalive> {
    let demand = Demand { busy: Busy::Idle, ..demand.clone() };
    let options = halve(&demand, |idle_s| {
        let (interval_s, probes) = (fixed.interval_s(idle_s), fixed.probes);
        let keepalive = Some(Keepalive { idle_s, interval_s, probes });
        Options { keepalive, ..Options::default() }
    });
    options.and_then(|options| options.keepalive)
}

/// The options with the longest idle time that meets the demand.
fn halve(demand: &Demand, with: impl Fn(u32) -> Options) -> Option<Options> {
    let in_time = |idle_s: u32| {
        let options = with(idle_s);
        idle(&options, &demand.path).by(demand.detect) && comes_before_forgetting(demand, &options)
    };
    let most = u32::try_from(demand.detect.as_secs().min(MOST_SECONDS)).ok()?;
    let (mut good, mut bad) = (0, most + 1);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if in_time(middle) { good = middle } else { bad = middle }
    }
    // The user timeout may leave less to a longer idle time.
    (good.saturating_sub(8).max(1)..=good).rev().map(with).find(|options| meets(demand, options))
}

fn comes_before_forgetting(demand: &Demand, options: &Options) -> bool {
    demand
        .path
        .forgets_after
        .is_none_or(|after| Case::Forgotten(after).is_survived(options, &demand.path))
}

/// Whether options meet the whole demand.
pub fn meets(demand: &Demand, options: &Options) -> bool {
    let path = &demand.path;
    let outlasts = |keepalive: Keepalive| {
        demand.survive.is_zero()
            || worst_beginnings(keepalive.idle(), demand.survive).iter().all(|begins| {
                Case::Outage(Moment::Idle(*begins), demand.survive).is_survived(options, path)
            })
    };
    (!demand.busy.may_idle() || idle(options, path).by(demand.detect))
        && options.keepalive.is_none_or(outlasts)
        && (!demand.busy.may_send()
            || sending(options, path).by(demand.detect) && survives_sending(demand, options))
        && comes_before_forgetting(demand, options)
}

/// The worst of what a demand names for such options: what is proven by trials.
pub fn worst_cases(demand: &Demand, options: &Options) -> Vec<(Case, (&'static str, String))> {
    let within = || ("require.noticed_within", spec::duration::show(demand.detect));
    let lives = || ("require.survives", "true".to_owned());
    let mut cases = Vec::new();
    let outages = !demand.survive.is_zero();
    if demand.busy.may_idle() {
        cases.push((Case::Lost(SOON_IDLE), within()));
    }
    if demand.busy.may_send() {
        cases.push((Case::Lost(AT_ONCE), within()));
    }
    if let Some(keepalive) = options.keepalive.filter(|_| outages) {
        let begin = worst_beginnings(keepalive.idle(), demand.survive);
        let of = |begins: &Duration| Case::Outage(Moment::Idle(*begins), demand.survive);
        cases.extend(begin.first().map(|begins| (of(begins), lives())));
    }
    if demand.busy.may_send() && outages {
        cases.push((Case::Outage(AT_ONCE, demand.survive), lives()));
    }
    cases.extend(demand.path.forgets_after.map(|after| (Case::Forgotten(after), lives())));
    cases
}

/// The nearest demands are told to this.
const TENTH: Duration = Duration::from_millis(100);

/// What is possible instead.
fn nearest(demand: &Demand) -> Nearest {
    let met = |detect: Duration, survive: Duration| {
        choose(&Demand { detect, survive, ..demand.clone() }).is_ok()
    };
    let tenths = |duration: Duration| u32::try_from(duration.as_millis() / 100).unwrap_or(u32::MAX);
    let detect = {
        let most = demand.detect * 2 + demand.survive * 8 + Duration::from_secs(8);
        let (mut bad, mut good) = (tenths(demand.detect), tenths(most));
        met(TENTH * good, demand.survive).then(|| {
            while good - bad > 1 {
                let middle = bad + (good - bad) / 2;
                if met(TENTH * middle, demand.survive) { good = middle } else { bad = middle }
            }
            TENTH * good
        })
    };
    let survive = met(demand.detect, Duration::ZERO).then(|| {
        let (mut good, mut bad) = (0, tenths(demand.survive) + 1);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if met(demand.detect, TENTH * middle) { good = middle } else { bad = middle }
        }
        TENTH * good
    });
    Nearest { detect, survive }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Path;

    fn demand(detect_s: f64, survive_s: f64, busy: Busy) -> Demand {
        Demand {
            detect: Duration::from_secs_f64(detect_s),
            survive: Duration::from_secs_f64(survive_s),
            busy,
            path: Path { rtt: Duration::ZERO, forgets_after: None, hz: 250, kernel: (6, 12) },
        }
    }

    #[test]
    fn what_is_chosen_meets_the_demand() {
        for (detect, survive) in [(10.0, 3.0), (10.0, 0.0), (60.0, 10.0), (4.5, 1.0)] {
            for busy in [Busy::Idle, Busy::Sending, Busy::Any] {
                let demand = demand(detect, survive, busy);
                let options = choose(&demand).unwrap_or_else(|why| panic!("{demand:?}: {why}"));
                assert!(meets(&demand, &options), "{demand:?}: {options:?}");
                assert_eq!(options.keepalive.is_some(), busy.may_idle());
                assert_eq!(options.user_timeout.is_some(), busy.may_send());
            }
        }
    }

    #[test]
    fn what_collides_has_a_nearest() {
        let demand = demand(5.0, 3.0, Busy::Any);
        let advice = advise(&demand);
        assert!(advice.chosen.is_none() && advice.collides.is_some(), "{advice:?}");
        let Nearest { detect: Some(detect), survive: Some(survive) } = advice.nearest else {
            panic!("{advice:?}")
        };
        assert!(choose(&Demand { detect, ..demand.clone() }).is_ok(), "{detect:?}");
        assert!(choose(&Demand { survive, ..demand.clone() }).is_ok(), "{survive:?}");
    }

    #[test]
    fn keepalive_comes_before_a_middlebox_forgets() {
        let mut demand = demand(600.0, 0.0, Busy::Idle);
        demand.path.forgets_after = Some(Duration::from_secs(350));
        let options = choose(&demand).unwrap();
        assert!(options.keepalive.unwrap().idle_s < 350, "{options:?}");
    }
}
