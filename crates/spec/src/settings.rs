//! The settings by their written keys: one table serves files, `--set`, and what is shown.

mod client;
mod fault;
mod kernel;
mod network;
mod proxy;
mod server;
mod turned;
mod value;

use crate::experiment::Parameters;
use crate::{sequence, sysctl};
use std::collections::BTreeMap;

/// One setting: its key, what it accepts, how it is written into and read from [`Parameters`].
pub struct Setting {
    /// The dotted key, as in `--set KEY=VALUE`.
    pub key: &'static str,
    /// What it is, a sentence or two.
    pub about: &'static str,
    /// What it accepts, for error messages and the manual.
    pub accepts: &'static str,
    /// Its value where nothing sets it; `None`: it has none.
    pub default: Option<&'static str>,
    /// A value to try.
    pub example: &'static str,
    set: fn(&mut Parameters, &str) -> Result<(), String>,
    get: fn(&Parameters) -> Option<String>,
}

/// Every setting with a key of its own.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    let own = [client::SETTINGS, client::SOCKET, server::SETTINGS, server::LOST];
    let other = [turned::SETTINGS, proxy::SETTINGS, fault::SETTINGS, kernel::SETTINGS];
    [network::SETTINGS].into_iter().chain(own).chain(other).flatten()
}

/// Settings whose keys end with a name: sysctls, and variables of a command's environment.
pub struct Family {
    /// What their keys begin with.
    pub prefix: &'static str,
    /// What they are, a sentence.
    pub about: &'static str,
    /// One of them with a value.
    pub example: &'static str,
    /// Whether they are sysctls; a variable takes any text.
    pub is_sysctl: bool,
    set: fn(&mut Parameters) -> &mut BTreeMap<String, String>,
    get: fn(&Parameters) -> &BTreeMap<String, String>,
}

/// Each [`Family`].
pub const FAMILIES: &[Family] = &[
    Family {
        prefix: "client.env.",
        about: "A variable in the environment of the client's command.",
        example: "client.env.LANG=C",
        is_sysctl: false,
        set: |p| &mut p.client.command.environment,
        get: |p| &p.client.command.environment,
    },
    Family {
        prefix: "server.env.",
        about: "A variable in the environment of the server's command.",
        example: "server.env.LANG=C",
        is_sysctl: false,
        set: |p| &mut p.server.command.environment,
        get: |p| &p.server.command.environment,
    },
    Family {
        prefix: "proxy.env.",
        about: "A variable in the environment of the proxy's command.",
        example: "proxy.env.LANG=C",
        is_sysctl: false,
        set: |p| &mut p.third.command.environment,
        get: |p| &p.third.command.environment,
    },
    Family {
        prefix: "needs.",
        about: "An executable or, with a slash in its name, a file that a command needs, and how it is installed: without it the trial is skipped.",
        example: "needs.redis-cli=apt-get install redis-tools",
        is_sysctl: false,
        set: |p| &mut p.needs,
        get: |p| &p.needs,
    },
    Family {
        prefix: "sysctl.",
        about: "`net.ipv4.NAME` in the client's network namespace.",
        example: "sysctl.tcp_retries2=8",
        is_sysctl: true,
        set: |p| &mut p.sysctl,
        get: |p| &p.sysctl,
    },
    Family {
        prefix: "server.sysctl.",
        about: "`net.ipv4.NAME` in the server's network namespace.",
        example: "server.sysctl.tcp_fin_timeout=10",
        is_sysctl: true,
        set: |p| &mut p.server_sysctl,
        get: |p| &p.server_sysctl,
    },
    Family {
        prefix: "proxy.sysctl.",
        about: "`net.ipv4.NAME` in the proxy's network namespace.",
        example: "proxy.sysctl.tcp_retries2=8",
        is_sysctl: true,
        set: |p| &mut p.third_sysctl,
        get: |p| &p.third_sysctl,
    },
    Family {
        prefix: "later.sysctl.",
        about: "`net.ipv4.NAME` in the survivor's network namespace, the client's unless `fault.host` is `client` (with the topology `proxy`, the proxy's unless it breaks), from `later.after` on.",
        example: "later.sysctl.tcp_retries2=3",
        is_sysctl: true,
        set: |p| &mut p.later.sysctl,
        get: |p| &p.later.sysctl,
    },
];

impl Family {
    /// The family of a key, and the name in it. A sysctl may be written as sysctl(8) does.
    pub fn of(key: &str) -> Option<(&'static Self, &str)> {
        FAMILIES.iter().find_map(|family| {
            let name = key.strip_prefix(family.prefix).filter(|name| !name.is_empty())?;
            Some((family, name.strip_prefix("net.ipv4.").unwrap_or(name)))
        })
    }
}

/// Applies one setting.
///
/// # Errors
/// A sentence: an unknown key (with the nearest), an unknown sysctl, or a value that is not
/// accepted, with what is.
pub fn apply(parameters: &mut Parameters, key: &str, value: &str) -> Result<(), String> {
    parameters.by_name();
    let result = apply_by_name(parameters, key, value);
    parameters.by_part();
    result
}

/// The same, where each host is the one that is called so.
fn apply_by_name(parameters: &mut Parameters, key: &str, value: &str) -> Result<(), String> {
    if let Some((family, name)) = Family::of(key) {
        if family.is_sysctl {
            sysctl::check(name, value)?;
        }
        let value = if family.is_sysctl { value.trim() } else { value };
        (family.set)(parameters).insert(name.into(), value.into());
        return Ok(());
    }
    let Some(setting) = find(key) else { return Err(unknown(key)) };
    let set = |parameters: &mut Parameters| {
        (setting.set)(parameters, value)
            .map_err(|problem| format!("{problem} (accepted: {})", setting.accepts))
    };
    match sequence::of_further(key) {
        Some((number, first)) => sequence::apply(parameters, (number, &first), set),
        None => set(parameters),
    }
}

/// The setting with this key; of a further fault, that of the first.
pub fn find(key: &str) -> Option<&'static Setting> {
    let first = sequence::of_further(key).map(|(_, first)| first);
    let key = first.as_deref().unwrap_or(key);
    settings().find(|setting| setting.key == key)
}

/// Why there is no setting with this key, and which one may have been meant.
pub fn unknown(key: &str) -> String {
    if let Some((number, first)) = sequence::of_further(key) {
        let own = |known: &'static str| sequence::as_further(known, number);
        let keys: Vec<_> = settings().filter_map(|setting| own(setting.key)).collect();
        let near = sysctl::nearest(&first, settings().map(|setting| setting.key)).and_then(own);
        let hint = near.map_or_else(
            || format!("its keys are {}", keys.join(", ")),
            |near| format!("is it `{near}`?"),
        );
        return format!("there is no setting `{key}`: {hint}");
    }
    let keys = || settings().map(|setting| setting.key);
    if ["sysctl", "server.sysctl", "proxy.sysctl", "later.sysctl"].contains(&key) {
        return format!(
            "`{key}` is a group of settings: `{key}.NAME` is net.ipv4.NAME, such as \
             `{key}.tcp_retries2`"
        );
    }
    let group = key.split('.').next().unwrap_or(key);
    if ["question", "claims", "matrix", "mend"].contains(&group) {
        return format!("`{group}` stands only in an experiment's file: {ALL}");
    }
    let name = key.rsplit('.').next().unwrap_or(key);
    if sysctl::accepts(name).is_ok() {
        let group = if key.starts_with("server.") { "server.sysctl" } else { "sysctl" };
        return format!("there is no setting `{key}`: is it `{group}.{name}`?");
    }
    if let Some(first) =
        keys().find(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    {
        return format!("`{key}` is a group of settings: is it `{first}`?");
    }
    let meant = by_last_parts(key).or_else(|| sysctl_with(key));
    let meant = meant.or_else(|| sysctl::nearest(key, keys()).map(|near| format!("`{near}`")));
    let hint = meant.map(|meant| format!("is it {meant}?"));
    let hint = hint.or_else(|| beside(key)).unwrap_or_else(|| ALL.into());
    format!("there is no setting `{key}`: {hint}")
}

const ALL: &str = "`halfopen keys` lists all settings, and there are `sysctl.NAME`, `server.sysctl.NAME` and \
                   `later.sysctl.NAME`";

/// The keys of the same group, where they are few.
fn beside(key: &str) -> Option<String> {
    let (group, _) = key.rsplit_once('.')?;
    let is_beside = |known: &&str| known.rsplit_once('.').is_some_and(|(of, _)| of == group);
    let known: Vec<_> = settings().map(|setting| setting.key).filter(is_beside).collect();
    (1..=BESIDE_MOST).contains(&known.len()).then(|| format!("there are `{}`", known.join("`, `")))
}

/// More keys than this are no hint.
const BESIDE_MOST: usize = 6;

/// The keys whose last parts these are, or whose last part this nearly is: `keepalive.idle` is
/// `client.keepalive.idle`, and `trafic` is `client.traffic`.
fn by_last_parts(key: &str) -> Option<String> {
    // Those of the other host are seldom meant.
    let is_own = |key: &&str| turned::SETTINGS.iter().all(|setting| setting.key != *key);
    let keys = || {
        let parted =
            settings().filter_map(|setting| setting.key.split_once('.').map(|_| setting.key));
        parted.filter(is_own)
    };
    let ends = |part: &str| -> Vec<_> {
        let has_end =
            |known: &&str| known.strip_suffix(part).is_some_and(|rest| rest.ends_with('.'));
        keys().filter(has_end).map(|key| format!("`{key}`")).collect()
    };
    let mut meant = ends(key);
    if meant.is_empty() && !key.contains('.') {
        let last = |key: &'static str| key.rsplit('.').next().unwrap_or(key);
        meant = sysctl::nearest(key, keys().map(last)).map(ends).unwrap_or_default();
    }
    (!meant.is_empty()).then(|| meant.join(" or "))
}

/// The sysctl whose name ends so: `retries2` is `sysctl.tcp_retries2`.
fn sysctl_with(end: &str) -> Option<String> {
    let name = format!("tcp_{end}");
    sysctl::accepts(&name).is_ok().then(|| format!("`sysctl.{name}`"))
}

/// Every setting that has a value, by key: what a trial was made with.
pub fn all(parameters: &Parameters) -> BTreeMap<String, String> {
    let mut parameters = parameters.clone();
    parameters.by_name();
    let parameters = &parameters;
    let mut values: BTreeMap<String, String> = settings()
        .filter_map(|setting| Some((setting.key.to_owned(), (setting.get)(parameters)?)))
        .collect();
    for number in 2..2 + parameters.further.len() {
        let own = parameters.with_fault(number - 1);
        values.extend(settings().filter_map(|setting| {
            Some((sequence::as_further(setting.key, number)?, (setting.get)(&own)?))
        }));
    }
    for family in FAMILIES {
        let named = (family.get)(parameters).iter();
        values
            .extend(named.map(|(name, value)| (format!("{}{name}", family.prefix), value.clone())));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_set_again() {
        let mut original = Parameters::default();
        for (key, value) in [
            ("topology", "router"),
            ("client.keepalive.enabled", "true"),
            ("client.keepalive.idle", "2s"),
            ("client.user_timeout", "12500ms"),
            ("fault.kind", "flap"),
            ("fault.duration", "1m30s"),
            ("sysctl.tcp_retries2", "5"),
            ("server.sysctl.tcp_fin_timeout", "3"),
        ] {
            apply(&mut original, key, value).unwrap();
        }
        let mut copy = Parameters::default();
        for (key, value) in all(&original) {
            apply(&mut copy, &key, &value).unwrap();
        }
        assert_eq!(copy, original);
    }

    #[test]
    fn defaults_are_what_nothing_sets_and_examples_are_accepted() {
        for setting in settings() {
            let mut parameters = Parameters::default();
            if let Some(default) = setting.default {
                apply(&mut parameters, setting.key, default).unwrap();
                assert_eq!(parameters, Parameters::default(), "{} = {default}", setting.key);
            }
            apply(&mut parameters, setting.key, setting.example).unwrap();
            assert_ne!(parameters, Parameters::default(), "{}: its example", setting.key);
            assert!(setting.about.ends_with('.'), "{}", setting.key);
        }
        for family in FAMILIES {
            let (key, value) = family.example.split_once('=').unwrap();
            assert!(key.starts_with(family.prefix), "{key}");
            apply(&mut Parameters::default(), key, value).unwrap();
        }
    }

    /// A choice that is not told could not be found.
    #[test]
    fn what_is_accepted_is_told() {
        fn told<T: crate::choice::Choice>(key: &str) {
            let accepts = find(key).unwrap().accepts;
            for name in T::names() {
                assert!(accepts.contains(&format!("`{name}`")), "{key}: {name}");
            }
        }
        told::<crate::Topology>("topology");
        told::<crate::Family>("family");
        told::<crate::Neighbour>("neighbour");
        told::<crate::Traffic>("client.traffic");
        told::<crate::FaultKind>("fault.kind");
        told::<crate::Reject>("fault.reject");
        told::<crate::Answer>("fault.answer");
    }

    #[test]
    fn a_bad_setting_names_what_was_given_and_what_is_accepted() {
        for (key, value, complaints) in [
            ("client.trafic", "idle", &["is it `client.traffic`?"][..]),
            ("qwertyuiop", "1", &["`halfopen keys` lists all", "sysctl.NAME"]),
            (
                "question",
                "why?",
                &["`question` stands only in an experiment's file", "`halfopen keys`"],
            ),
            ("claims", "A1", &["`claims` stands only in an experiment's file"]),
            ("mend.what", "x", &["`mend` stands only in an experiment's file"]),
            ("keepalive.idle", "5s", &["is it `client.keepalive.idle` or `proxy.keepalive.idle`?"]),
            ("retries2", "5", &["is it `sysctl.tcp_retries2`?"]),
            ("path.loss", "5", &["there are `path.rtt`, `path.rto_min`"]),
            ("tcp_retries2", "8", &["is it `sysctl.tcp_retries2`?"]),
            ("client.keepalive", "true", &["is it `client.keepalive.enabled`?"]),
            ("server.sysctl", "5", &["`server.sysctl.NAME`", "`server.sysctl.tcp_retries2`"]),
            ("client.traffic", "loud", &["`loud`", "`one-write`"]),
            ("fault.kind", "poweroff", &["`poweroff`", "is it `power-off`?"]),
            ("traffic", "idle", &["is it `client.traffic`?"]),
            ("linger", "1s", &["is it `client.linger` or `server.linger`?"]),
            ("client.keepalive.idle", "1500ms", &["`1500ms`", "whole seconds"]),
            ("client.keepalive.probes", "0", &["`0`", "1 to 127"]),
            ("client.user_timeout", "25d", &["`25d`", "24 days"]),
            ("client.rto_max", "500ms", &["`500ms`", "from `1s`"]),
            ("fault.after", "5", &["no unit", "a duration"]),
            ("sysctl.tcp_retires2", "5", &["tcp_retries2"]),
            ("server.sysctl.tcp_retries2", "five", &["`five`", "0 to 255"]),
            ("deadline", "0s", &["out of range", "100ms"]),
        ] {
            let error = apply(&mut Parameters::default(), key, value).unwrap_err();
            for complaint in complaints {
                assert!(error.contains(complaint), "{key}={value}: {error}");
            }
        }
    }
}
