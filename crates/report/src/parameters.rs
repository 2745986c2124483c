//! The settings of a trial as documents show them: those that matter to it, with the values in
//! force.

use serde_json::Value;
use spec::{Facts, Parameters, Traffic, settings};
use std::collections::BTreeMap;

/// The Linux defaults of the sysctls that keepalive takes its times from (include/net/tcp.h).
const KEEPALIVE: [(&str, &str, u64); 3] = [
    ("client.keepalive.idle", "tcp_keepalive_time", 7200),
    ("client.keepalive.interval", "tcp_keepalive_intvl", 75),
    ("client.keepalive.probes", "tcp_keepalive_probes", 9),
];

/// By key: numbers and truth values as such, durations as they are set. What the socket leaves to
/// its namespace is that one's value, from the facts if there are any.
pub(crate) fn in_force(parameters: &Parameters, facts: Option<&Facts>) -> BTreeMap<String, Value> {
    let mut shown = settings::all(parameters);
    let traffic = parameters.client.traffic;
    shown.retain(|key, _| !key.starts_with("client.heartbeat.") || traffic == Traffic::Heartbeat);
    if traffic == Traffic::Connect {
        shown.retain(|key, _| !key.starts_with("client.keepalive."));
    } else if parameters.client.keepalive.enabled {
        for (key, sysctl, default) in KEEPALIVE {
            let set = facts.map_or(&parameters.sysctl, |facts| &facts.sysctl).get(sysctl);
            let value = set.map_or_else(|| default.to_string(), |value| value.trim().to_owned());
            let unit = if key.ends_with("probes") { "" } else { "s" };
            shown.entry(key.to_owned()).or_insert_with(|| value + unit);
        }
    } else {
        shown.retain(|key, _| !KEEPALIVE.iter().any(|(time, ..)| key == time));
    }
    shown.entry("client.user_timeout".into()).or_insert_with(|| "off".into());
    shown.into_iter().map(|(key, value)| (key, typed(value))).collect()
}

fn typed(text: String) -> Value {
    match (text.parse::<bool>(), text.parse::<i64>()) {
        (Ok(flag), _) => flag.into(),
        (_, Ok(number)) => number.into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_matters_is_shown_with_the_value_in_force() {
        let mut parameters = Parameters::default();
        let shown = in_force(&parameters, None);
        assert_eq!(shown["client.keepalive.enabled"], false);
        assert!(shown.keys().all(|key| !key.contains("heartbeat")), "{shown:?}");
        assert!(!shown.contains_key("client.keepalive.idle"), "{shown:?}");
        assert_eq!(shown["client.user_timeout"], "off");

        parameters.client.keepalive.enabled = true;
        parameters.client.keepalive.interval = Some(Duration::from_secs(3));
        parameters.sysctl.insert("tcp_keepalive_probes".into(), "5".into());
        let shown = in_force(&parameters, None);
        assert_eq!(shown["client.keepalive.idle"], "7200s");
        assert_eq!(shown["client.keepalive.interval"], "3s");
        assert_eq!(shown["client.keepalive.probes"], 5);
        assert_eq!(shown["sysctl.tcp_keepalive_probes"], 5);

        parameters.client.traffic = Traffic::Heartbeat;
        assert_eq!(in_force(&parameters, None)["client.heartbeat.interval"], "1s");
        parameters.client.traffic = Traffic::Connect;
        let shown = in_force(&parameters, None);
        assert!(shown.keys().all(|key| !key.contains("client.keepalive")), "{shown:?}");
    }
}
