//! Reads a connection string or lines of a configuration, and says what in it does not do what it
//! seems to.

use crate::options::in_words;
use crate::settings::in_unit;
use crate::{Detection, Ecosystem, Keepalive, Options, Path, ecosystems};
use model::Found;
use std::time::Duration;

/// The text as one ecosystem reads it.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Who reads it so.
    pub ecosystem: Ecosystem,
    /// The socket's options then.
    pub options: Options,
    /// What they do.
    pub detection: Detection,
    /// What is wrong with them.
    pub findings: Vec<Finding>,
}

/// One thing that does not do what it seems to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Of what kind.
    pub kind: Kind,
    /// What, in a sentence.
    pub what: String,
    /// The settings of an experiment that shows it, as `halfopen run` takes them.
    pub shown_by: Option<String>,
}

/// Kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is not in force: something else decides.
    Masked,
    /// It does nothing.
    Ineffective,
    /// It ends connections that could live, or keeps dead ones.
    Dangerous,
}

impl Kind {
    /// The written name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Masked => "masked",
            Self::Ineffective => "ineffective",
            Self::Dangerous => "dangerous",
        }
    }
}

/// What one ecosystem finds in a text.
#[derive(Debug, Default)]
struct Given {
    on: Option<bool>,
    idle_s: Option<u32>,
    interval_s: Option<u32>,
    probes: Option<u32>,
    user_timeout: Option<Duration>,
    ping: Option<Duration>,
    pings: Option<u32>,
}

/// The text as each ecosystem reads it that knows the most names in it.
///
/// # Errors
/// A setting that is not known, or a value that its ecosystem does not take.
pub fn review(text: &str, path: &Path) -> Result<Vec<Reading>, String> {
    let all = ecosystems();
    let of_scheme = |ecosystem: &&Ecosystem| {
        let mut schemes = ecosystem.schemes.iter();
        !text.contains("://") || schemes.any(|scheme| text.starts_with(&format!("{scheme}:")))
    };
    let text = text.replace(" = ", "=");
    let words = words(&text);
    let known =
        |one: &Ecosystem| words.iter().filter(|(key, _)| one.reads.contains_key(*key)).count();
    let most = all.values().filter(of_scheme).map(known).max().unwrap_or(0).max(1);
    let readers = all.values().filter(of_scheme).filter(|one| known(one) == most);
    let readings =
        readers.map(|reader| read(reader, &words, path)).collect::<Result<Vec<_>, _>>()?;
    if readings.is_empty() {
        let readers: Vec<_> =
            all.values().filter(|one| !one.reads.is_empty()).map(|one| &*one.name).collect();
        return Err(format!(
            "no known option of keepalive or of a user timeout is in it; accepted are \
             connection strings and configuration lines of {}",
            readers.join(", ")
        ));
    }
    Ok(readings)
}

/// Names with what follows them: `key=value`, `key value`, or a name alone.
fn words(text: &str) -> Vec<(&str, &str)> {
    let ends = |character: char| character.is_whitespace() || "?&;,".contains(character);
    let tokens: Vec<_> = text.split(ends).filter(|token| !token.is_empty()).collect();
    let next = |at: usize| tokens.get(at + 1).copied().unwrap_or("");
    let pair = |(at, token): (usize, &&'_ str)| {
        tokens[at]
            .split_once('=')
            .unwrap_or((tokens[at], if token.is_empty() { "" } else { next(at) }))
    };
    tokens.iter().enumerate().map(pair).collect()
}

fn read(ecosystem: &Ecosystem, words: &[(&str, &str)], path: &Path) -> Result<Reading, String> {
    let mut given = Given::default();
    for (key, value) in words {
        if let Some(meaning) = ecosystem.reads.get(*key) {
            given
                .take(meaning, value)
                .map_err(|why| format!("`{key}` of {}: `{value}`: {why}", ecosystem.name))?;
        }
    }
    let options = given.options(ecosystem);
    let detection = Detection::by(&options, path);
    let findings = findings(&given, &options, &detection, (path, ecosystem.waits));
    Ok(Reading { ecosystem: ecosystem.clone(), options, detection, findings })
}

impl Given {
    fn take(&mut self, meaning: &str, value: &str) -> Result<(), String> {
        let whole = || value.parse::<u32>().map_err(|_| "it is a whole number".to_owned());
        let seconds = |value: &str| {
            let seconds = in_unit(value, "s")?.as_secs();
            u32::try_from(seconds).map_err(|_| "that is too long".to_owned())
        };
        match meaning {
            "keepalive" => self.on = Some(true),
            "keepalive bool" => self.on = Some(truth(value)?),
            "keepalive triple" => self.triple(value)?,
            "keepalive idle s" => {
                self.idle_s = Some(seconds(value)?);
                self.on = self.idle_s.map(|idle_s| idle_s > 0);
            }
            "keepidle s" => self.idle_s = Some(seconds(value)?),
            "keepintvl s" => self.interval_s = Some(seconds(value)?),
            "keepcnt" => self.probes = Some(whole()?),
            "user_timeout ms" => self.user_timeout = Some(in_unit(value, "ms")?),
            "user_timeout s" => self.user_timeout = Some(in_unit(value, "s")?),
            "ping s" => self.ping = Some(in_unit(value, "s")?),
            "pings" => self.pings = Some(whole()?),
            _ => unreachable!("a test reads every meaning"),
        }
        Ok(())
    }

    /// nginx: `on`, `off` or `idle:interval:probes`, each of which may be left out.
    fn triple(&mut self, value: &str) -> Result<(), String> {
        if let Ok(on) = truth(value) {
            self.on = Some(on);
            return Ok(());
        }
        let parts: Vec<_> = value.split(':').collect();
        let [idle, interval, probes] = parts[..] else {
            return Err("it is on, off or idle:interval:probes".into());
        };
        self.on = Some(true);
        if !idle.is_empty() {
            self.take("keepidle s", idle)?;
        }
        if !interval.is_empty() {
            self.take("keepintvl s", interval)?;
        }
        if !probes.is_empty() {
            self.take("keepcnt", probes)?;
        }
        Ok(())
    }

    fn options(&self, ecosystem: &Ecosystem) -> Options {
        let on = self.on.unwrap_or(ecosystem.implies.as_deref() == Some("keepalive"));
        // 0 is "the system's" wherever it is taken.
        let or = |given: Option<u32>, default| given.filter(|n| *n > 0).unwrap_or(default);
        let mut default = Keepalive::DEFAULT;
        let idle_s = or(self.idle_s, default.idle_s);
        if let Some(fixed) = ecosystem.fixed {
            (default.interval_s, default.probes) = (fixed.interval_s(idle_s), fixed.probes);
        }
        let keepalive = Keepalive {
            idle_s,
            interval_s: or(self.interval_s, default.interval_s),
            probes: or(self.probes, default.probes),
        };
        Options {
            keepalive: on.then_some(keepalive),
            user_timeout: self.user_timeout.filter(|timeout| !timeout.is_zero()),
            ..Options::default()
        }
    }

    fn has_times(&self) -> bool {
        self.idle_s.is_some() || self.interval_s.is_some() || self.probes.is_some()
    }
}

fn truth(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Ok(true),
        "0" | "off" | "no" | "false" => Ok(false),
        _ => Err("it is on or off".into()),
    }
}

/// A write that is given up later than this is probably not intended.
const LATE: Duration = Duration::from_secs(300);
/// The least RTO (`TCP_RTO_MIN`, include/net/tcp.h).
const RTO_MIN: Duration = Duration::from_millis(200);

/// `waits` is how many intervals of its own messages pass by default until the program gives up: 4, or
/// more where they take longer than it says.
fn findings(
    given: &Given,
    options: &Options,
    detection: &Detection,
    (path, waits): (&Path, u32),
) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut find = |kind, experiment: &str, what: String| {
        let settings: Vec<_> = options
            .settings()
            .into_iter()
            .map(|(key, value)| format!("--set {key}={value}"))
            .collect();
        let shown_by = (!experiment.is_empty()).then(|| {
            format!("halfopen run {experiment} --defaults --clock virtual {}", settings.join(" "))
                .trim_end()
                .to_owned()
        });
        found.push(Finding { kind, what, shown_by });
    };
    if options.keepalive.is_none() {
        if given.has_times() {
            find(Kind::Ineffective, "", "keepalive is off: its times do nothing".into());
        }
        if given.ping.is_none_or(|ping| ping.is_zero()) {
            let timeout = options
                .user_timeout
                .map_or("", |_| ": TCP_USER_TIMEOUT does not see an idle connection");
            find(
                Kind::Dangerous,
                "host-crash-idle-no-keepalive",
                format!(
                    "keepalive is off: an idle connection never finds out that its peer is gone{timeout}"
                ),
            );
        }
    }
    if let (Some(keepalive), Some(timeout)) = (options.keepalive, options.user_timeout) {
        let lost = keepalive.lost_probes(Some(timeout));
        let shown = in_words(timeout);
        if lost <= 1 {
            find(
                Kind::Dangerous,
                "host-crash-idle-keepalive",
                format!(
                    "TCP_USER_TIMEOUT of {shown} ends an idle connection for one lost keepalive probe"
                ),
            );
        } else if lost != keepalive.probes {
            let more = if lost < keepalive.probes { "not" } else { "and not only" };
            find(
                Kind::Masked,
                "host-crash-idle-keepalive",
                format!(
                    "TCP_USER_TIMEOUT replaces the number of probes: an idle connection \
                     ends after {lost} lost probes, {more} {}",
                    keepalive.probes
                ),
            );
        }
    }
    match options.user_timeout {
        Some(timeout) if timeout <= RTO_MIN + path.rtt => find(
            Kind::Dangerous,
            "host-crash-sending-user-timeout",
            format!(
                "TCP_USER_TIMEOUT of {} is no longer than the first retransmission timeout: one lost \
                 segment ends the connection (is the number in the right unit?)",
                in_words(timeout)
            ),
        ),
        Some(timeout) if timeout > LATE => find(
            Kind::Dangerous,
            "host-crash-sending-user-timeout",
            format!(
                "TCP_USER_TIMEOUT of {}: a write waits that long (is the number in the right \
                 unit?)",
                in_words(timeout)
            ),
        ),
        None => {
            let waits = match detection.sending {
                Found::Within(_, _, latest) => format!("up to {} s", latest.as_secs()),
                Found::Never | Found::Unknown => "long".into(),
            };
            find(
                Kind::Dangerous,
                "host-crash-sending",
                format!(
                    "there is no TCP_USER_TIMEOUT: a write that is not acknowledged waits {waits} (tcp_retries2)"
                ),
            );
        }
        Some(_) => {}
    }
    let ping = given.ping.filter(|ping| !ping.is_zero());
    if let (Some(keepalive), Some(after)) = (options.keepalive, path.forgets_after)
        && keepalive.idle().min(ping.unwrap_or(Duration::MAX)) >= after
    {
        find(
            Kind::Ineffective,
            "nat-forgets-keepalive-late",
            format!(
                "the first probe comes after {} s, and the middlebox forgets the flow after {}",
                keepalive.idle_s,
                in_words(after)
            ),
        );
    }
    if let Some(ping) = ping {
        let after = ping * (given.pings.unwrap_or(3) + 1) * waits / 4;
        find(
            Kind::Masked,
            "",
            format!(
                "the program's own timer finds an idle peer's end within about {}",
                in_words(after)
            ),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Path {
        Path { rtt: Duration::ZERO, forgets_after: None, hz: 250, kernel: (6, 12) }
    }

    fn kinds(text: &str) -> Vec<(String, Vec<(Kind, String)>)> {
        let of = |reading: Reading| {
            let findings = reading.findings.into_iter().map(|f| (f.kind, f.what)).collect();
            (reading.ecosystem.name, findings)
        };
        review(text, &path()).unwrap().into_iter().map(of).collect()
    }

    #[test]
    fn one_number_means_two_times() {
        let read =
            kinds("postgres://h/db?keepalives_idle=5&keepalives_interval=2&tcp_user_timeout=5000");
        assert_eq!(read.len(), 2, "{read:?}");
        let (libpq, tokio) = (&read[0], &read[1]);
        assert!(libpq.0.starts_with("libpq"), "{read:?}");
        assert!(
            libpq.1.iter().any(|(_, what)| what.contains("one lost keepalive probe")),
            "{read:?}"
        );
        assert!(tokio.1.iter().any(|(_, what)| what.contains("5000 s")), "{read:?}");
    }

    #[test]
    fn probes_that_may_be_lost() {
        let keepalive = Keepalive { idle_s: 5, interval_s: 2, probes: 3 };
        for (timeout_s, lost) in [(4, 1), (7, 1), (9, 2), (11, 3), (16, 6)] {
            assert_eq!(
                keepalive.lost_probes(Some(Duration::from_secs(timeout_s))),
                lost,
                "{timeout_s}"
            );
        }
    }

    #[test]
    fn lines_of_configurations_are_read() {
        let nginx = &review("listen 443 so_keepalive=30m::10;", &path()).unwrap()[0];
        let expected = Keepalive { idle_s: 1800, interval_s: 75, probes: 10 };
        assert_eq!(nginx.options.keepalive, Some(expected));
        let haproxy = &review("option srvtcpka\nsrvtcpka-idle 10s\nserver a b tcp-ut 30s", &path())
            .unwrap()[0];
        assert_eq!(haproxy.options.user_timeout, Some(Duration::from_secs(30)));
        let redis = &review("tcp-keepalive 60", &path()).unwrap()[0];
        let expected = Keepalive { idle_s: 60, interval_s: 20, probes: 3 };
        assert_eq!(redis.options.keepalive, Some(expected));
        let mut behind = path();
        behind.forgets_after = Some(Duration::from_secs(350));
        let own = |line| review(line, &behind).unwrap().remove(0).findings;
        // Its own messages come before the middlebox forgets.
        assert!(!own("ServerAliveInterval 15").iter().any(|f| f.kind == Kind::Ineffective));
        assert!(own("ServerAliveInterval 0").iter().any(|f| f.kind == Kind::Ineffective));
        assert!(own("ServerAliveInterval 15").iter().any(|f| f.what.contains("60 s")));
        assert!(own("ClientAliveInterval 15").iter().any(|f| f.what.contains("120 s")));
        let server = review("tcp_keepalives_idle = 5\ntcp_user_timeout = 9000", &path()).unwrap();
        assert_eq!(server.len(), 1, "{server:?}");
        assert_eq!(server[0].options.user_timeout, Some(Duration::from_secs(9)));
        assert!(review("a text without any", &path()).unwrap_err().contains("libpq"));
        assert!(review("keepalives_idle=x", &path()).unwrap_err().contains("keepalives_idle"));
    }
}
