//! How each ecosystem says the options: the data of `knobs.toml`.

use crate::options::Fixed;
use crate::search::with_fixed_times;
use crate::{Advice, BySysctl, Chosen, Keepalive, Options};
use model::Found;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// An ecosystem.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ecosystem {
    /// Its name for people.
    pub name: String,
    /// Where names and units were read.
    pub source: String,
    /// What is so without any setting.
    pub default: String,
    /// From which version on it is so.
    pub version: Option<String>,
    /// What else must be known.
    pub note: Option<String>,
    /// Where its lines are written, where that is a file or a command of a running program.
    pub place: Option<String>,
    /// The programs that are told so, by `/proc/PID/comm`.
    #[serde(default)]
    process: Vec<String>,
    /// Its lines are for connections of one side alone.
    side: Option<Side>,
    lines: Vec<Line>,
    #[serde(default)]
    separator: Option<String>,
    #[serde(default)]
    pub(crate) fixed: Option<Fixed>,
    /// How many intervals of its own messages pass until it gives up.
    #[serde(default = "four")]
    pub(crate) waits: u32,
    /// Keepalive's times are those of the sysctls, whatever it prints.
    #[serde(default)]
    sysctl_times: bool,
    /// The option that is on unless it is switched off.
    #[serde(default)]
    pub(crate) implies: Option<String>,
    #[serde(default)]
    pub(crate) schemes: Vec<String>,
    #[serde(default)]
    pub(crate) reads: BTreeMap<String, String>,
}

fn four() -> u32 {
    4
}

/// Who began a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Side {
    Accepted,
    Opened,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    when: Option<String>,
    side: Option<Side>,
    text: String,
}

/// Advice in an ecosystem's words.
#[derive(Debug, Clone)]
pub struct Snippet {
    /// The lines to write; empty: it cannot be said there.
    pub text: String,
    /// The options of its connections then, where they are what finds a dead peer out.
    pub options: Option<Options>,
    /// What it leaves open, and what must be known.
    pub caveats: Vec<String>,
}

/// Every ecosystem, by its short name.
pub fn ecosystems() -> BTreeMap<String, Ecosystem> {
    toml::from_str(include_str!("../knobs.toml")).expect("a test reads it")
}

/// How a program is told that has this `/proc/PID/comm`; several, where its connections of one side and
/// the other are not of one ecosystem.
pub fn of_process(process: &str) -> Vec<Ecosystem> {
    let is_its = |one: &Ecosystem| one.process.iter().any(|name| name == process);
    ecosystems().into_values().filter(is_its).collect()
}

impl Ecosystem {
    /// What to write there.
    pub fn snippet(&self, advice: &Advice) -> Option<Snippet> {
        let chosen = advice.chosen.as_ref()?;
        let mut caveats = Vec::new();
        let options = self.in_force(advice, chosen, &mut caveats);
        let values = options
            .as_ref()
            .map_or_else(BTreeMap::new, |options| self.values(options, advice.demand.detect));
        let lines: Vec<_> = self.lines.iter().filter_map(|line| line.with(&values)).collect();
        if self.sets_any(&["ping_s"]) && !values.contains_key("ping") {
            caveats.push(
                "its own timer counts whole seconds, which is too coarse for this demand".into(),
            );
        }
        caveats.extend(self.note.clone());
        let text = lines.join(self.separator.as_deref().unwrap_or("\n"));
        let options = options.filter(|_| !self.has_own_timer());
        Some(Snippet { text, options, caveats })
    }

    /// What to write for connections that a program accepted or opened, so that a peer that is gone is
    /// found out within a minute; nothing where it cannot be said.
    pub fn within_a_minute(&self, accepted: bool) -> Vec<String> {
        let side = if accepted { Side::Accepted } else { Side::Opened };
        if self.side.is_some_and(|own| own != side) {
            return Vec::new();
        }
        let values = self.values(&self.of_a_minute(), MINUTE);
        let of_side = |line: &&Line| line.side.is_none_or(|own| own == side);
        let lines = self.lines.iter().filter(of_side).filter_map(|line| line.with(&values));
        match &self.separator {
            Some(separator) => vec![lines.collect::<Vec<_>>().join(separator)],
            None => lines.collect(),
        }
    }

    /// Options that find a dead peer out within a minute: timers run a little late.
    fn of_a_minute(&self) -> Options {
        let own = Keepalive { idle_s: 25, interval_s: 10, probes: 3 };
        Options {
            keepalive: self.fixed.map_or(Some(own), |fixed| fixed.within(52)),
            user_timeout: self.sets_user_timeout().then_some(Duration::from_secs(55)),
            ..Options::default()
        }
    }

    /// The options of its connections if it sets what it can, and sysctls do the rest.
    fn in_force(
        &self,
        advice: &Advice,
        chosen: &Chosen,
        caveats: &mut Vec<String>,
    ) -> Option<Options> {
        let mut options = chosen.options.clone();
        if self.has_own_timer() {
            return Some(options);
        }
        if options.user_timeout.is_some() && !self.sets_user_timeout() {
            let without = chosen.without.as_ref()?;
            options.user_timeout = None;
            options.keepalive = without.keepalive;
            options.retries2 = without.retries2;
            caveats.push(match without.retries2 {
                Some(retries) => format!(
                    "TCP_USER_TIMEOUT cannot be set: the sysctl tcp_retries2 = {retries} gives a write up \
                     in time, and that of every other connection of the network namespace"
                ),
                None => format!(
                    "TCP_USER_TIMEOUT cannot be set, and no tcp_retries2 meets this demand: a write \
                     that is not acknowledged is given up {}",
                    match without.sending {
                        Found::Within(_, _, latest) => format!("after up to {} s", latest.as_secs()),
                        Found::Never | Found::Unknown => "late".into(),
                    }
                ),
            });
        }
        if let Some(fixed) = self.fixed.filter(|_| chosen.options.keepalive.is_some()) {
            options.keepalive = with_fixed_times(&advice.demand, fixed);
            if options.keepalive.is_none() {
                caveats.push("with its fixed times keepalive cannot meet this demand".into());
                return None;
            }
        }
        options.by_sysctl = BySysctl {
            times: options.keepalive.is_some()
                && (self.sysctl_times || !self.sets_any(&["keepidle_s", "keepidle_ms"])),
            rto_max: options.rto_max.is_some() && !self.sets_any(&["rto_max_ms"]),
        };
        if options.by_sysctl.times && !self.sysctl_times {
            caveats.push(
                "keepalive's times cannot be set: they are the sysctls', as for every connection of the \
                 network namespace that does not set its own"
                    .into(),
            );
        }
        if options.by_sysctl.rto_max {
            caveats.push(
                "TCP_RTO_MAX_MS cannot be set: the sysctl tcp_rto_max_ms does, for connections that \
                 begin after it"
                    .into(),
            );
        }
        Some(options)
    }

    /// The placeholders' values, its own interval among them.
    fn values(&self, options: &Options, detect: Duration) -> BTreeMap<&'static str, String> {
        let mut values = values(options, detect);
        if let Some(seconds) = self.ping_s(detect) {
            values.extend([("ping", String::new()), ("ping_s", seconds.to_string())]);
        }
        values
    }

    /// The interval of the program's own messages. Each may come a second late: OpenSSH counts whole
    /// seconds (`client_alive_check`, serverloop.c).
    fn ping_s(&self, detect: Duration) -> Option<u64> {
        (detect.as_secs() / u64::from(self.waits)).checked_sub(1).filter(|seconds| *seconds > 0)
    }

    /// Whether the program finds a dead peer out by messages of its own.
    fn has_own_timer(&self) -> bool {
        self.sets_any(&["ping_s", "half_ms"])
    }

    fn sets_user_timeout(&self) -> bool {
        self.sets_any(&["user_timeout_ms", "user_timeout_s"])
    }

    fn sets_any(&self, placeholders: &[&str]) -> bool {
        let places: Vec<_> = placeholders.iter().map(|name| format!("{{{name}}}")).collect();
        self.lines.iter().any(|line| places.iter().any(|place| line.text.contains(place)))
    }
}

/// What `halfopen audit` advises where no demand is given.
const MINUTE: Duration = Duration::from_secs(60);

impl Line {
    /// The line with its values; `None` where one is not there.
    fn with(&self, values: &BTreeMap<&str, String>) -> Option<String> {
        if self.when.as_ref().is_some_and(|option| !values.contains_key(option.as_str())) {
            return None;
        }
        let mut text = self.text.clone();
        for name in PLACEHOLDERS {
            let place = format!("{{{name}}}");
            if text.contains(&place) {
                text = text.replace(&place, values.get(name)?);
            }
        }
        Some(text)
    }
}

const PLACEHOLDERS: [&str; 10] = [
    "keepidle_s",
    "keepidle_ms",
    "keepintvl_s",
    "keepcnt",
    "user_timeout_ms",
    "user_timeout_s",
    "rto_max_ms",
    "retries2",
    "ping_s",
    "half_ms",
];

/// The placeholders' values, and the names of options for `when`.
fn values(options: &Options, detect: Duration) -> BTreeMap<&'static str, String> {
    let mut values =
        BTreeMap::from([("any", String::new()), ("half_ms", (detect.as_millis() / 2).to_string())]);
    if let Some(keepalive) = options.keepalive {
        values.extend([
            ("keepalive", String::new()),
            ("keepidle_s", keepalive.idle_s.to_string()),
            ("keepidle_ms", (u64::from(keepalive.idle_s) * 1000).to_string()),
            ("keepintvl_s", keepalive.interval_s.to_string()),
            ("keepcnt", keepalive.probes.to_string()),
        ]);
    }
    if let Some(timeout) = options.user_timeout {
        values.extend([
            ("user_timeout", String::new()),
            ("user_timeout_ms", timeout.as_millis().to_string()),
            ("user_timeout_s", seconds_at_least(timeout).to_string()),
        ]);
    }
    if let Some(most) = options.rto_max {
        values.extend([("rto_max", String::new()), ("rto_max_ms", most.as_millis().to_string())]);
    }
    if let Some(retries) = options.retries2 {
        values.insert("retries2", retries.to_string());
    }
    values
}

fn seconds_at_least(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Busy, Demand, Detection, Path, advise};

    fn advice(busy: Busy) -> Advice {
        let path = Path { rtt: Duration::ZERO, forgets_after: None, hz: 250, kernel: (6, 12) };
        let [detect, survive] = [20, 2].map(Duration::from_secs);
        advise(&Demand { detect, survive, busy, path })
    }

    fn options(advice: &Advice, name: &str) -> Options {
        ecosystems()[name].snippet(advice).unwrap().options.unwrap()
    }

    #[test]
    fn every_program_is_told_something() {
        for (name, ecosystem) in ecosystems() {
            let lines = [true, false].map(|accepted| ecosystem.within_a_minute(accepted));
            assert!(lines.iter().any(|lines| !lines.is_empty()), "{name}");
            let left: Vec<_> = lines
                .iter()
                .flatten()
                .filter(|line| line.contains("_s}") || line.contains("_ms}"))
                .collect();
            assert!(left.is_empty(), "{name}: {left:?}");
        }
        assert_eq!(of_process("ssh")[0].within_a_minute(false)[0], "ServerAliveInterval 14");
        assert_eq!(of_process("redis-server")[0].within_a_minute(true), ["tcp-keepalive 26"]);
        assert!(of_process("redis-server")[0].within_a_minute(false).is_empty());
        assert_eq!(of_process("curl")[0].within_a_minute(false), ["curl --keepalive-time 5"]);
        assert!(of_process("nobody knows it").is_empty());
    }

    #[test]
    fn a_minute_is_a_minute() {
        let path = Path { rtt: Duration::ZERO, forgets_after: None, hz: 100, kernel: (6, 12) };
        for (name, ecosystem) in ecosystems() {
            let options = ecosystem.of_a_minute();
            let detection = Detection::by(&options, &path);
            let writes = options.user_timeout.is_none() || detection.sending.by(MINUTE);
            assert!(writes && detection.idle.by(MINUTE), "{name}: {options:?}: {detection:?}");
        }
    }

    #[test]
    fn sysctls_do_what_socket_options_cannot() {
        let advice = advice(Busy::Any);
        assert_eq!(options(&advice, "c"), advice.chosen.clone().unwrap().options);
        assert!(options(&advice, "c").sysctl().is_empty());
        // No TCP_USER_TIMEOUT, and times of its own.
        let java = options(&advice, "java");
        assert_eq!(java.sysctl().keys().copied().collect::<Vec<_>>(), ["tcp_retries2"]);
        assert!(java.user_timeout.is_none() && java.keepalive.is_some(), "{java:?}");
        // Keepalive's switch alone.
        let names =
            ["tcp_keepalive_intvl", "tcp_keepalive_probes", "tcp_keepalive_time", "tcp_retries2"];
        assert_eq!(options(&advice, "jdbc").sysctl().keys().copied().collect::<Vec<_>>(), names);
        assert_eq!(options(&advice, "sysctl").sysctl().len(), 4);
        // An idle connection is not given up by tcp_retries2.
        assert!(options(&self::advice(Busy::Idle), "java").sysctl().is_empty());
        // Its own timer is no socket option.
        assert!(ecosystems()["ssh"].snippet(&advice).unwrap().options.is_none());
    }
}
