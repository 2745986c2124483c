//! The settings of a trial as documents show them: those that matter to it, with the values in
//! force.

use serde_json::Value;
use spec::{Facts, Parameters, relevance, settings};
use std::collections::BTreeMap;

/// By key: numbers and truth values as such, durations as they are set. What the socket leaves to
/// its namespace is that one's value, from the facts if there are any.
pub(crate) fn in_force(parameters: &Parameters, facts: Option<&Facts>) -> BTreeMap<String, Value> {
    let mut shown = settings::all(parameters);
    let mut known = parameters.clone();
    if let Some(facts) = facts {
        known.sysctl.clone_from(&facts.sysctl);
    }
    let (idle, interval, probes) = known.keepalive_in_force();
    for (key, value) in [
        ("client.keepalive.idle", format!("{}s", idle.as_secs())),
        ("client.keepalive.interval", format!("{}s", interval.as_secs())),
        ("client.keepalive.probes", probes.to_string()),
        ("client.user_timeout", "off".into()),
    ] {
        shown.entry(parameters.named(key)).or_insert(value);
    }
    shown.retain(|key, _| relevance::lacks(key, parameters).is_none());
    shown.into_iter().map(|(key, value)| (key, typed(value))).collect()
}

/// A value as JSON has it: a number or a truth value as such, anything else as text.
pub(crate) fn typed(text: String) -> Value {
    match (text.parse::<bool>(), text.parse::<i64>()) {
        (Ok(flag), _) => flag.into(),
        (_, Ok(number)) => number.into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::Traffic;
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
