//! How each ecosystem says the options: the data of `knobs.toml`.

use crate::options::Fixed;
use crate::search::with_fixed_times;
use crate::{Advice, Demand, Found, Options, outlook};
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
    lines: Vec<Line>,
    #[serde(default)]
    separator: Option<String>,
    #[serde(default)]
    fixed: Option<Fixed>,
    /// The option that is on unless it is switched off.
    #[serde(default)]
    pub(crate) implies: Option<String>,
    #[serde(default)]
    pub(crate) schemes: Vec<String>,
    #[serde(default)]
    pub(crate) reads: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    when: Option<String>,
    text: String,
}

/// Advice in an ecosystem's words.
#[derive(Debug, Clone)]
pub struct Snippet {
    /// The lines to write; empty: it cannot be said there.
    pub text: String,
    /// What it leaves open, and what must be known.
    pub caveats: Vec<String>,
}

/// Every ecosystem, by its short name.
pub fn ecosystems() -> BTreeMap<String, Ecosystem> {
    toml::from_str(include_str!("../knobs.toml")).expect("a test reads it")
}

impl Ecosystem {
    /// What to write there.
    pub fn snippet(&self, advice: &Advice) -> Option<Snippet> {
        let chosen = &advice.chosen.as_ref()?.options;
        let mut caveats = Vec::new();
        let options = self.limited(&advice.demand, chosen, &mut caveats);
        let values =
            options.as_ref().map_or_else(BTreeMap::new, |options| values(options, &advice.demand));
        let lines: Vec<_> = self.lines.iter().filter_map(|line| line.with(&values)).collect();
        caveats.extend(self.left_open(chosen, &advice.demand));
        caveats.extend(self.note.clone());
        Some(Snippet { text: lines.join(self.separator.as_deref().unwrap_or("\n")), caveats })
    }

    /// The options as far as its fixed times allow.
    fn limited(
        &self,
        demand: &Demand,
        chosen: &Options,
        caveats: &mut Vec<String>,
    ) -> Option<Options> {
        let Some(fixed) = self.fixed.filter(|_| chosen.keepalive.is_some()) else {
            return Some(chosen.clone());
        };
        let limited = with_fixed_times(demand, fixed);
        if limited.is_none() {
            caveats.push("with its fixed times keepalive cannot meet this demand".into());
        }
        limited
    }

    /// Which of the chosen options it cannot set, and what follows.
    fn left_open(&self, chosen: &Options, demand: &Demand) -> Vec<String> {
        let mut open = Vec::new();
        let own_timer = self.sets("ping_s") || self.sets("half_ms");
        if let Some(keepalive) = chosen.keepalive
            && !own_timer
            && !self.sets("keepidle_s")
            && !self.sets("keepidle_ms")
        {
            open.push(format!(
                "keepalive's times cannot be set: set them by sysctl (tcp_keepalive_time = {}, \
                 tcp_keepalive_intvl = {}, tcp_keepalive_probes = {})",
                keepalive.idle_s, keepalive.interval_s, keepalive.probes
            ));
        }
        let lacks_timeout =
            !["user_timeout_ms", "user_timeout_s", "half_ms"].iter().any(|name| self.sets(name));
        if chosen.user_timeout.is_some() && lacks_timeout && !own_timer {
            let without = Options { user_timeout: None, ..chosen.clone() };
            let waits = match outlook::sending(&without, &demand.path) {
                Found::Within(_, latest) => format!("after up to {} s", latest.as_secs()),
                Found::Never | Found::Unknown => "late".into(),
            };
            open.push(format!(
                "TCP_USER_TIMEOUT cannot be set: a write that is not acknowledged is given up {waits} \
                 (tcp_retries2)"
            ));
        }
        if chosen.rto_max.is_some() && !self.sets("rto_max_ms") {
            open.push(
                "TCP_RTO_MAX_MS cannot be set: the outage may not be survived while sending".into(),
            );
        }
        open
    }

    fn sets(&self, placeholder: &str) -> bool {
        self.lines.iter().any(|line| line.text.contains(&format!("{{{placeholder}}}")))
    }
}

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

const PLACEHOLDERS: [&str; 9] = [
    "keepidle_s",
    "keepidle_ms",
    "keepintvl_s",
    "keepcnt",
    "user_timeout_ms",
    "user_timeout_s",
    "rto_max_ms",
    "ping_s",
    "half_ms",
];

/// The placeholders' values, and the names of options for `when`.
fn values(options: &Options, demand: &Demand) -> BTreeMap<&'static str, String> {
    let mut values = BTreeMap::from([
        ("any", String::new()),
        ("ping_s", (demand.detect.as_secs() / 4).max(1).to_string()),
        ("half_ms", (demand.detect.as_millis() / 2).to_string()),
    ]);
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
    values
}

fn seconds_at_least(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}
