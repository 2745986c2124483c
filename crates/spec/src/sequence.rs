//! Faults that follow one another: each has all keys of the first, as `fault.2.kind`, or stands as a
//! further table `[[fault]]` in a file.

use crate::choice::{FaultKind, Program, Traffic};
use crate::duration;
use crate::experiment::{Fault, Parameters, Still};
use std::time::Duration;

/// The keys that say what each further fault is, the second's first.
const KINDS: [&str; 8] = [
    "fault.2.kind",
    "fault.3.kind",
    "fault.4.kind",
    "fault.5.kind",
    "fault.6.kind",
    "fault.7.kind",
    "fault.8.kind",
    "fault.9.kind",
];

/// The keys of the first fault that no further one has, and why.
const OF_THE_FIRST: [(&str, &str); 4] = [
    ("fault.host", "all faults of a trial break the same host: set `fault.host`"),
    ("fault.on_output", "output begins the first fault alone: set `fault.on_output`"),
    ("fault.idle", NOT_FORGET),
    ("fault.answer", NOT_FORGET),
];

const NOT_FORGET: &str =
    "`forget` holds from before the connection, and so goes with no other fault";

/// The number of a further fault, from 2, and the first fault's key: `fault.2.kind` is `fault.kind` of
/// the second.
pub fn of_further(key: &str) -> Option<(usize, String)> {
    let (number, rest) = key.strip_prefix("fault.")?.split_once('.')?;
    Some((number.parse().ok()?, format!("fault.{rest}")))
}

/// A key of the first fault as that of a further one; `None`: it has no such key.
pub(crate) fn as_further(key: &str, number: usize) -> Option<String> {
    let rest = key.strip_prefix("fault.")?;
    let has_it = OF_THE_FIRST.iter().all(|(other, _)| *other != key);
    has_it.then(|| format!("fault.{number}.{rest}"))
}

/// Has `set` write a setting of the first fault into a further one.
///
/// # Errors
/// That no further fault has this number or this key, or what `set` says.
pub(crate) fn apply(
    parameters: &mut Parameters,
    (number, key): (usize, &str),
    set: impl FnOnce(&mut Parameters) -> Result<(), String>,
) -> Result<(), String> {
    let Some(index) = number.checked_sub(2).filter(|index| *index < KINDS.len()) else {
        return Err(format!(
            "the first fault is `fault.kind`, and those after it are `fault.2.kind` to `{}`",
            KINDS[KINDS.len() - 1]
        ));
    };
    if let Some((_, why)) = OF_THE_FIRST.iter().find(|(other, _)| *other == key) {
        return Err((*why).into());
    }
    let further = &mut parameters.further;
    if further.len() <= index {
        further.resize_with(index + 1, Fault::default);
    }
    std::mem::swap(&mut parameters.fault, &mut parameters.further[index]);
    let result = set(parameters);
    std::mem::swap(&mut parameters.fault, &mut parameters.further[index]);
    result
}

impl FaultKind {
    /// Whether it can be undone while the trial goes on, so that another fault can follow.
    pub const fn can_be_healed(self) -> bool {
        self.why_last().is_none()
    }

    /// Why no other fault can follow it; `None`: one can.
    const fn why_last(self) -> Option<&'static str> {
        Some(match self {
            Self::Flap | Self::Blackhole | Self::Mtu | Self::Reject | Self::ProcessFreeze => {
                return None;
            }
            Self::None => "it breaks nothing: leave it out, and have the other come later",
            Self::ProcessCrash => "the kernel has closed the killed process's connections",
            Self::PowerOff | Self::Reboot | Self::Takeover => {
                "no host knows the connections any more that it could break"
            }
            Self::Forget => NOT_FORGET,
            Self::Unplug => "nobody plugs the cable in again",
        })
    }
}

impl Parameters {
    /// Whether each connection is predicted anew, from its socket, at each fault and call: programs do as
    /// they like, or faults follow one another.
    pub fn predicts_anew(&self) -> bool {
        self.runs_command() || !self.further.is_empty()
    }

    /// Whether what the client does is followed from one fault to the next beyond its `close` or `shutdown`: of a
    /// program of halfopen's own all calls are known.
    pub fn follows_program(&self) -> bool {
        !self.runs_command() && !self.further.is_empty() && self.client_says_goodbye()
    }

    /// The same with the fault of this place alone: 0 is the first.
    #[must_use]
    pub fn with_fault(&self, place: usize) -> Self {
        let mut own = self.clone();
        if let Some(fault) = place.checked_sub(1).and_then(|index| self.further.get(index)) {
            own.fault =
                Fault { host: self.fault.host, still: self.still_away(place), ..fault.clone() };
        }
        own
    }

    /// What took the path away before the fault of this place, if that comes while it is away, and leaves it
    /// so: the end of a process.
    fn still_away(&self, place: usize) -> Option<Still> {
        let fault = self.further.get(place.checked_sub(1)?)?;
        let before = self.with_fault(place - 1);
        let is_away = fault.kind == FaultKind::ProcessCrash && before.fault.effect().is_silent();
        let lasts = before.fault_duration();
        let is_over = lasts.is_some_and(|lasts| lasts <= fault.after);
        let left = lasts.map(|lasts| lasts.saturating_sub(fault.after));
        (is_away && !is_over).then_some(Still { kind: before.fault.kind, left })
    }

    /// The same without the faults after the one of this place.
    #[must_use]
    pub fn up_to_fault(&self, place: usize) -> Self {
        let mut own = self.clone();
        own.further.truncate(place);
        own
    }

    /// Each fault in its turn.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        std::iter::once(&self.fault).chain(&self.further)
    }

    /// From the first fault to the beginning of the last.
    pub fn faults_take(&self) -> Duration {
        self.further.iter().map(|fault| fault.after).sum()
    }

    /// Faults that follow one another.
    pub(crate) fn validate_sequence(&self) -> Result<(), (&'static str, String)> {
        for (index, (before, fault)) in self.faults().zip(&self.further).enumerate() {
            let key = KINDS[index];
            match fault.kind {
                FaultKind::None => {
                    let why = "what breaks is not said: set it, or leave this fault out";
                    return Err((key, why.into()));
                }
                FaultKind::Forget => return Err((key, NOT_FORGET.into())),
                _ => {}
            }
            if let Some(why) = before.kind.why_last() {
                let why = format!("`{}` cannot follow `{}`: {why}", fault.kind, before.kind);
                return Err((key, why));
            }
            let own = Self { deadline: None, ..self.with_fault(index + 1) };
            own.validate_all_frames().and_then(|()| own.validate_turned()).map_err(
                |(other, why)| {
                    let other = as_further(other, index + 2).unwrap_or_else(|| other.into());
                    (key, format!("of `{}`, `{other}`: {why}", fault.kind))
                },
            )?;
            let lasts = self.with_fault(index).fault_duration();
            if let Some(lasts) = lasts.filter(|lasts| *lasts > fault.after)
                && own.fault.still.is_none()
            {
                let [lasts, after] = [lasts, fault.after].map(duration::show);
                let why = format!(
                    "`{}` comes {after} after `{}` began, which lasts {lasts}: what two faults at once do is not \
                     modelled, so have this one come later or the other end sooner",
                    fault.kind, before.kind
                );
                return Err((key, why));
            }
        }
        if self.further.is_empty() {
            return Ok(());
        }
        if let Some(deadline) = self.deadline.filter(|_| !self.deadline_extends)
            && deadline <= self.faults_take()
        {
            let [deadline, last] = [deadline, self.faults_take()].map(duration::show);
            let why = format!(
                "the trial would end {deadline} after the first fault, before the last comes at {last}"
            );
            return Err(("deadline", why));
        }
        self.validate_programs_of_sequence()
    }

    /// What a program of halfopen's own does must leave a connection for the next fault.
    fn validate_programs_of_sequence(&self) -> Result<(), (&'static str, String)> {
        if self.runs_command() {
            return Ok(());
        }
        if [self.client.program, self.server.program].contains(&Program::Nginx) {
            let why = "with several faults, give nginx as a command";
            return Err(("client.program", why.into()));
        }
        if self.client.traffic == Traffic::Connect {
            let why = "with several faults the client has a connection, and with `connect` it is not connected when \
                       the first comes";
            return Err(("client.traffic", why.into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{all, apply};

    fn with(settings: &[(&str, &str)]) -> Result<Parameters, String> {
        let mut parameters = Parameters::default();
        for (key, value) in settings {
            apply(&mut parameters, key, value)?;
        }
        parameters.validate().map_err(|(key, why)| format!("{key}: {why}"))?;
        Ok(parameters)
    }

    const FLAP: [(&str, &str); 2] = [("fault.kind", "flap"), ("fault.duration", "2s")];

    #[test]
    fn a_further_fault_has_the_keys_of_the_first() {
        let later = [
            ("fault.2.after", "5s"),
            ("fault.2.kind", "blackhole"),
            ("fault.2.packets", "3"),
            ("fault.3.kind", "process-crash"),
            ("fault.host", "client"),
        ];
        let parameters = with(&[&FLAP[..], &later].concat()).unwrap();
        let kinds: Vec<_> = parameters.faults().map(|fault| fault.kind).collect();
        assert_eq!(kinds, [FaultKind::Flap, FaultKind::Blackhole, FaultKind::ProcessCrash]);
        assert_eq!(parameters.with_fault(1).fault.packets, Some(3));
        assert_eq!(parameters.with_fault(2).fault.host, parameters.fault.host);
        assert_eq!(parameters.faults_take(), Duration::from_millis(5_200));
        let mut copy = Parameters::default();
        for (key, value) in all(&parameters) {
            apply(&mut copy, &key, &value).unwrap();
        }
        assert_eq!(copy, parameters);
    }

    /// Its end leaves the path as it is.
    #[test]
    fn a_process_may_be_killed_while_the_path_is_away() {
        let still = |first: &[(&str, &str)], after| {
            let crash = [("fault.2.kind", "process-crash"), ("fault.2.after", after)];
            let own = with(&[first, &crash].concat()).unwrap().with_fault(1);
            let effect = own.fault.effect();
            assert_eq!(effect.peer_kernel_answers(), own.fault.still.is_none(), "{effect:?}");
            assert!(effect.kills());
            own.fault.still.map(|still| still.left)
        };
        assert_eq!(still(&FLAP, "500ms"), Some(Some(Duration::from_millis(1_500))));
        assert_eq!(still(&FLAP, "2s"), None);
        assert_eq!(still(&[("fault.kind", "blackhole")], "2s"), Some(None));
        // It drops some packets, and lasts until the next fault.
        assert_eq!(still(&[("fault.kind", "blackhole"), ("fault.packets", "3")], "2s"), None);
        let reject = [("fault.kind", "reject"), ("topology", "router")];
        assert_eq!(still(&reject, "2s"), None);
    }

    #[test]
    fn what_cannot_follow_is_refused_with_the_reason() {
        for (first, later, complaint) in [
            (&[("fault.kind", "power-off")][..], ("fault.2.kind", "flap"), "no host knows"),
            (&[("fault.kind", "process-crash")], ("fault.2.kind", "process-crash"), "has closed"),
            (&[("fault.kind", "takeover")], ("fault.2.kind", "process-crash"), "no host knows"),
            (&[], ("fault.2.kind", "power-off"), "breaks nothing"),
            (&FLAP, ("fault.2.kind", "forget"), "from before the connection"),
            (&FLAP, ("fault.2.kind", "flap"), "when does the link come back"),
            (&FLAP, ("fault.2.kind", "reject"), "use `router`"),
            (&FLAP, ("fault.2.kind", "process-freeze"), "which lasts 2s"),
            (&FLAP, ("fault.2.after", "3s"), "what breaks is not said"),
            (&FLAP, ("fault.2.host", "client"), "the same host"),
            (&FLAP, ("fault.2.idle", "5s"), "from before the connection"),
            (&FLAP, ("fault.1.kind", "flap"), "the first fault is `fault.kind`"),
            (&FLAP, ("fault.10.kind", "flap"), "`fault.9.kind`"),
            (&FLAP, ("fault.2.knid", "flap"), "is it `fault.2.kind`?"),
            (&FLAP, ("fault.2.kind", "flop"), "is it `flap`?"),
        ] {
            let error = with(&[first, &[later]].concat()).unwrap_err();
            assert!(error.contains(complaint), "{first:?} {later:?}: {error}");
        }
        let crash = [("fault.2.kind", "process-crash"), ("fault.2.after", "9s")];
        for (set, complaint) in [
            (("client.traffic", "connect"), "is not connected"),
            (("deadline", "8s"), "before the last comes at 9s"),
        ] {
            let error = with(&[&FLAP[..], &crash, &[set]].concat()).unwrap_err();
            assert!(error.contains(complaint), "{set:?}: {error}");
        }
    }
}
