use super::*;
use crate::choice::Traffic;
use crate::{FaultKind, Mend};
use std::fmt::Write;
use std::time::Duration;

const GOOD: &str = r#"
question = "When does an idle client find out?"
claims = ["E2"]

[client]
traffic = "idle"
keepalive = { enabled = true, idle = "2s", interval = "1s", probes = 3 }

[fault]
kind = "power-off"

[sysctl]
tcp_retries2 = 5
"#;

fn load_text(text: &str) -> Result<Experiment, Error> {
    load("test", "experiments/test.toml", text, false, &[])
}

#[test]
fn a_good_file_is_read() {
    let experiment = load_text(GOOD).unwrap();
    assert_eq!(experiment.claims, ["E2"]);
    let parameters = experiment.parameters;
    assert_eq!(parameters.fault.kind, FaultKind::PowerOff);
    assert_eq!(parameters.client.traffic, Traffic::Idle);
    assert_eq!(parameters.client.keepalive.idle, Some(Duration::from_secs(2)));
    assert_eq!(parameters.sysctl["tcp_retries2"], "5");
}

#[test]
fn a_power_off_with_a_duration_is_a_reboot_after_it() {
    let overrides = [("fault.duration".to_owned(), "3s".to_owned())];
    let fault = load("t", "t.toml", GOOD, false, &overrides).unwrap().parameters.fault;
    assert_eq!((fault.kind, fault.duration), (FaultKind::Reboot, Some(Duration::from_secs(3))));
}

#[test]
fn defaults_come_after_the_file_and_before_overrides() {
    let overrides = [("sysctl.tcp_retries2".to_owned(), "7".to_owned())];
    let parameters = load("t", "t.toml", GOOD, true, &overrides).unwrap().parameters;
    assert!(parameters.client.keepalive.enabled, "what is switched on stays on");
    assert_eq!(parameters.client.keepalive.idle, None);
    assert_eq!(parameters.sysctl["tcp_retries2"], "7");
    let parameters = load("t", "t.toml", GOOD, true, &[]).unwrap().parameters;
    assert!(parameters.sysctl.is_empty());
}

/// The file's deadline was chosen for its short settings.
#[test]
fn with_the_defaults_a_files_deadline_holds_keepalive_and_one_that_was_asked_for_is_exact() {
    let file = format!("deadline = \"6s\"\n{GOOD}");
    let load = |defaults, overrides: &[(&str, &str)]| {
        let overrides: Vec<_> =
            overrides.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let parameters = load("t", "t.toml", &file, defaults, &overrides).unwrap().parameters;
        (parameters.deadline.unwrap().as_secs(), parameters.deadline_extends)
    };
    assert_eq!(load(false, &[]), (6, false));
    assert_eq!(load(true, &[]), ((7200 + 9 * 75) * 11 / 10, true));
    assert_eq!(load(true, &[("deadline", "7s")]), (7, false));
    assert_eq!(load(true, &[("client.keepalive.enabled", "false")]), (6, true));
    let quick = [("client.keepalive.idle", "10s"), ("sysctl.tcp_keepalive_intvl", "10")];
    assert_eq!(load(true, &quick), (110, true));
}

/// The errors that bad files give, as a person sees them.
#[test]
fn bad_files() {
    let bad = [
        ("malformed", "question = \"x\"\n[client\n"),
        ("no question", "[fault]\nkind = \"none\"\n"),
        ("unknown key", "question = \"x\"\n[client]\ntrafic = \"idle\"\n"),
        ("unknown table", "question = \"x\"\n[cleint]\ntraffic = \"idle\"\n"),
        ("duplicate key", "question = \"x\"\nquestion = \"y\"\n"),
        ("no unit", "question = \"x\"\n[fault]\nafter = 5\n"),
        ("wrong unit", "question = \"x\"\n[fault]\nafter = \"5 apples\"\n"),
        ("negative", "question = \"x\"\ndeadline = \"-5s\"\n"),
        ("absurd", "question = \"x\"\ndeadline = \"400d\"\n"),
        ("wrong type", "question = \"x\"\ntopology = [1]\n"),
        ("question is a number", "question = 5\n"),
        ("question is empty", "question = \"\"\n"),
        ("question has lines", "question = \"x\\ny\"\n"),
        ("no quotes", "question = \"x\"\n[client]\ntraffic = idle\n"),
        ("a time without quotes", "question = \"x\"\n[fault]\nafter = 5s\n"),
        ("no fault", "question = \"x\"\n[client]\ntraffic = \"idle\"\n"),
        (
            "keepalive options alone",
            "question = \"x\"\n[client]\nkeepalive = { idle = \"5s\" }\n[fault]\nkind = \"power-off\"\n",
        ),
        (
            "a deadline before the fault is over",
            "question = \"x\"\ndeadline = \"2s\"\n[fault]\nkind = \"flap\"\nduration = \"12s\"\n",
        ),
        ("nearly a fault", "question = \"x\"\n[fault]\nkind = \"poweroff\"\n"),
        ("combination", "question = \"x\"\n[fault]\nkind = \"unplug\"\n"),
        ("flap for ever", "question = \"x\"\n[fault]\nkind = \"flap\"\n"),
        ("sysctl name", "question = \"x\"\n[sysctl]\ntcp_retires2 = 5\n"),
        ("sysctl value", "question = \"x\"\n[sysctl]\ntcp_retries2 = 999\n"),
        ("huge", "question = \"x\"\n[sysctl]\ntcp_retries2 = 99999999999999999999\n"),
        ("sysctl without a name", "sysctl = 5\nquestion = \"x\"\n"),
    ];
    let mut all = String::new();
    for (name, text) in bad {
        let error = load_text(text).expect_err(name);
        write!(all, "── {name}\n{error}\n\n").expect("writing to a String cannot fail");
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_script_is_a_text_or_a_list() {
    let file = |script: &str| {
        let text = format!(
            "question = \"x\"\n[fault]\nkind = \"none\"\n[client]\ntraffic = \"script\"\nscript = {script}\n"
        );
        load_text(&text)
    };
    let one = file("\"write 100; wait 5s; close\"").unwrap();
    let list = file("[\"write 100\", \"wait 5s\", \"close\"]").unwrap();
    assert_eq!(one.parameters, list.parameters);
    for (script, complaint) in [
        ("[\"write 100\", \"wrte 5\"]", "step 2, \"wrte 5\": is it \"write 5\"?"),
        ("[\"write 100\", 5]", "something that is not a text"),
        ("[]", "at least one step"),
    ] {
        let error = file(script).unwrap_err();
        assert!(error.to_string().contains(complaint), "{script}: {error}");
        assert_eq!(error.place.map(|place| place.span.len()), Some(script.len()));
    }
    let error = load_text("question = \"x\"\ntopology = [\"router\"]\n").unwrap_err();
    assert!(error.to_string().contains("is not a text"), "{error}");
}

/// A sweep over `enabled` leaves the options as they are.
#[test]
fn what_is_explicitly_off_is_no_mistake() {
    let off = |key: &str| (key.to_owned(), "false".to_owned());
    let idle = ("client.keepalive.idle".to_owned(), "5s".to_owned());
    let load = |text: &str, overrides: &[Override]| load("t", "t.toml", text, false, overrides);
    assert!(load(GOOD, &[off("client.keepalive.enabled")]).is_ok());
    assert!(load(GOOD, &[off("client.keepalive.enabled"), idle.clone()]).is_ok());
    assert!(load(&GOOD.replace("enabled = true", "enabled = false"), &[]).is_ok());
    let without = GOOD.replace("enabled = true, ", "");
    assert!(load(&without, &[]).unwrap_err().message.contains("`client.keepalive.enabled"));
    assert!(load(&without, &[off("client.keepalive.enabled")]).is_ok());
    let crash = "question = \"x\"\n[fault]\nkind = \"power-off\"\n";
    assert!(load(crash, &[idle]).unwrap_err().message.contains("client.keepalive.enabled"));
    assert!(load(GOOD, &[("sysctl.tcp_keepalive_time".into(), "5".into())]).is_ok());
}

#[test]
fn a_question_says_what_was_changed() {
    let ask = |defaults, key: &str, value: &str| {
        let overrides = [(key.to_owned(), value.to_owned())];
        load("t", "t.toml", GOOD, defaults, &overrides).unwrap().question
    };
    let file = "When does an idle client find out?";
    assert_eq!(ask(false, "fault.kind", "power-off"), file, "it was so before");
    let fits =
        "Fault process-crash, traffic idle: when does the client find out, and what is it told?";
    let changed = ask(false, "fault.kind", "process-crash");
    assert_eq!(changed, format!("{fits} (with fault.kind = process-crash)"));
    let changed = ask(true, "client.user_timeout", "off");
    let fits = "Fault power-off, traffic idle: when does the client find out, and what is it told?";
    assert_eq!(changed, format!("{fits} (with the Linux defaults)"));
}

#[test]
fn overrides_are_blamed_by_name() {
    let cases = [
        (("client.keepalive.idle", "2"), "no unit"),
        (("fault.kind", "unplug"), "use `direct`"),
        (("fault.reject", "tcp-reset"), "matters only with the fault `reject`"),
    ];
    for ((key, value), complaint) in cases {
        let overrides = [(key.to_owned(), value.to_owned())];
        let error = load("t", "t.toml", GOOD, false, &overrides).unwrap_err().to_string();
        assert!(error.contains(complaint) && error.contains(key), "{error}");
    }
    assert!(parse_override("novalue").is_err());
}

#[test]
fn what_has_no_effect_on_connecting_is_refused() {
    let file =
        "question = \"x?\"\n[client]\ntraffic = \"connect\"\n[fault]\nkind = \"power-off\"\n";
    let set = |key: &str, value: &str| {
        load("t", "t.toml", file, false, &[(key.to_owned(), value.to_owned())])
    };
    for (key, value) in [
        ("client.rto_min", "50ms"),
        ("path.rto_min", "50ms"),
        ("client.thin_linear_timeouts", "true"),
        ("client.keepalive.enabled", "true"),
        ("client.keepalive.idle", "5s"),
    ] {
        let error = set(key, value).unwrap_err().to_string();
        let expected = format!("`{key}` matters only with a traffic other than `connect`");
        assert!(error.contains(&expected), "{error}");
    }
    for (key, value) in [("client.user_timeout", "2s"), ("client.rto_max", "2s")] {
        assert!(set(key, value).is_ok(), "{key}");
    }
}

/// The file with these settings over it.
fn set(text: &str, given: &[(&str, &str)]) -> Result<(), Error> {
    let given: Vec<_> = given.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    load("t", "t.toml", text, false, &given).map(drop)
}

#[test]
fn what_is_of_a_host_or_a_program_that_is_not_there_is_refused() {
    const PROXY: &str = "the topology `proxy`";
    const COMMAND: &str = "a command as its host's program";
    for (key, value, with) in [
        ("proxy.command", "cat", PROXY),
        ("proxy.ready", "true", PROXY),
        ("proxy.user", "root", PROXY),
        ("proxy.cwd", "/", PROXY),
        ("proxy.stdin", "off", PROXY),
        ("proxy.listen", "80", PROXY),
        ("proxy.keepalive.enabled", "true", PROXY),
        ("proxy.keepalive.idle", "5s", PROXY),
        ("proxy.user_timeout", "5s", PROXY),
        ("proxy.env.A", "false", PROXY),
        ("proxy.sysctl.tcp_retries2", "5", PROXY),
        ("client.user", "root", COMMAND),
        ("client.tty", "true", COMMAND),
        ("client.cwd", "/", COMMAND),
        ("client.stdin", "off", COMMAND),
        ("client.env.A", "false", COMMAND),
        ("client.restart", "false", COMMAND),
        ("server.user", "root", COMMAND),
        ("server.cwd", "/", COMMAND),
        ("server.stdin", "x", COMMAND),
        ("server.env.A", "b", COMMAND),
        ("server.restart", "false", COMMAND),
        ("server.ready", "true", COMMAND),
        ("fault.announce", "false", "the fault `takeover`"),
    ] {
        for host in ["server", "client"] {
            let error = set(GOOD, &[("fault.host", host), (key, value)]).unwrap_err().message;
            assert!(error.contains(&format!("`{key}` matters only with {with}")), "{error}");
        }
    }
    for (key, value) in [("proxy.keepalive.enabled", "false"), ("client.tty", "false")] {
        assert_eq!(set(GOOD, &[(key, value)]), Ok(()), "{key} is off");
    }
}

#[test]
fn what_is_of_a_host_and_a_program_that_are_there_is_taken() {
    let file = "question = \"x?\"\nfault.kind = \"power-off\"\ntopology = \"proxy\"\n";
    let commands = [("client.command", "cat"), ("server.command", "cat")];
    for own in [
        ("client.env.A", "b"),
        ("server.restart", "false"),
        ("server.ready", "true"),
        ("proxy.listen", "80"),
        ("proxy.keepalive.enabled", "true"),
        ("proxy.sysctl.tcp_retries2", "5"),
    ] {
        for host in ["client", "proxy", "server"] {
            let given = [&commands[..], &[("fault.host", host), own]].concat();
            assert_eq!(set(file, &given), Ok(()), "{own:?}, {host}");
        }
    }
    for (host, key, value, with) in [
        ("server", "proxy.stdin", "x", "a command"),
        ("server", "client.keepalive.idle", "3s", "`client.keepalive.enabled = true`"),
        ("proxy", "proxy.keepalive.idle", "3s", "`proxy.keepalive.enabled = true`"),
        ("proxy", "server.keepalive.idle", "3s", "`server.keepalive.enabled = true`"),
        ("server", "client.heartbeat.interval", "3s", "the traffic `heartbeat`"),
    ] {
        let given = [("server.listen", "80"), ("fault.host", host), (key, value)];
        let error = set(file, &given).unwrap_err().message;
        assert!(error.contains(&format!("`{key}` matters only with {with}")), "{error}");
    }
}

#[test]
fn a_flag_that_cannot_matter_is_refused() {
    let client = ("-- CLIENT", "client.command", "nc server 80".to_owned());
    let listen = ("--listen", "server.listen", "80".to_owned());
    let ready = ("--ready", "server.ready", "true".to_owned());
    assert!(assemble("exec", "?", &[client.clone(), listen.clone()], false, &[]).is_ok());
    let error = assemble("exec", "?", &[client, listen, ready], false, &[]).unwrap_err();
    assert!(
        error.message.starts_with("--ready: `server.ready` matters only with a command"),
        "{error}"
    );
}

#[test]
fn several_faults_are_several_tables() {
    let text = "question = \"?\"\n[[fault]]\nkind = \"flap\"\nduration = \"2s\"\n[[fault]]\nkind = \"flap\"\n\
                duration = \"1s\"\nafter = \"5s\"\n";
    let experiment = load("a", "a.toml", text, false, &[]).unwrap();
    let lasting = |seconds| Some(Duration::from_secs(seconds));
    let durations: Vec<_> = experiment.parameters.faults().map(|fault| fault.duration).collect();
    assert_eq!(durations, [lasting(2), lasting(1)]);
    let as_table = text.replacen("[[fault]]", "[fault]", 1).replace("[[fault]]", "[fault.2]");
    assert_eq!(load("a", "a.toml", &as_table, false, &[]), Ok(experiment));
    for (from, to, line, complaint) in [
        ("duration = \"1s\"", "", 6, "needs it: when does the link come back"),
        ("after = \"5s\"", "after = \"5\"", 8, "no unit"),
        ("after = \"5s\"", "afer = \"5s\"", 8, "is it `fault.2.after`?"),
    ] {
        let error =
            load("a", "a.toml", &text.replace(from, to), false, &[]).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
        assert!(error.contains(&format!("a.toml:{line}")), "{line}: {error}");
    }
}

const MENDED: &str = r#"
question = "Does nc find out?"
client.command = ["nc", "server", "7000"]
server.listen = 7000
fault.kind = "power-off"

[mend]
what = "tcp_retries2=5"
sysctl.tcp_retries2 = 5
"#;

#[test]
fn a_mend_is_a_trial_of_its_own_on_top_of_everything_else() {
    let overrides = [("sysctl.tcp_retries2".to_owned(), "9".to_owned())];
    let plain = load("nc", "nc.toml", MENDED, true, &overrides).unwrap();
    assert_eq!(plain.mend, Some(Mend::With("tcp_retries2=5".into())));
    assert_eq!(plain.parameters.sysctl["tcp_retries2"], "9");
    let mended = load_mended("nc", "nc.toml", MENDED, true, &overrides).unwrap().unwrap();
    assert_eq!(
        (&*mended.name, mended.parameters.sysctl["tcp_retries2"].as_str()),
        ("nc-mended", "5")
    );
    assert_eq!(mended.mend, Some(Mend::Applied("tcp_retries2=5".into())));
    assert_eq!(mended.parameters.client.command, plain.parameters.client.command);

    let nothing = MENDED.replace("sysctl.tcp_retries2 = 5", "").replace("what", "none");
    assert_eq!(
        load("nc", "nc.toml", &nothing, false, &[]).unwrap().mend.unwrap().text(),
        "tcp_retries2=5"
    );
    assert_eq!(load_mended("nc", "nc.toml", &nothing, false, &[]), Ok(None));
    assert_eq!(load_mended("t", "t.toml", GOOD, false, &[]), Ok(None));
}

#[test]
fn a_mend_that_is_none_is_refused_at_its_place() {
    for (from, to, said) in [
        ("sysctl.tcp_retries2 = 5", "", "sets nothing"),
        ("what = ", "why = ", "there is no setting"),
        ("what = \"tcp_retries2=5\"", "", "has either `what"),
        ("what = ", "none = ", "has either `what"),
        ("what = \"tcp_retries2=5\"", "what = 5", "`mend.what` is a text"),
        ("= 5\n", "= -1\n", "tcp_retries2"),
        ("sysctl.tcp_retries2 = 5", "client.user_timeout = \"5s\"", "client.user_timeout"),
    ] {
        let text = MENDED.replace(from, to);
        let error = load_mended("nc", "nc.toml", &text, false, &[]).unwrap_err();
        assert!(error.message.contains(said), "{to}: {}", error.message);
        let place = error.place.unwrap();
        assert!(place.span.start >= text.find("[mend]").unwrap(), "{to}: {place:?}");
    }
}
