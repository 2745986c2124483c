//! Experiment files: TOML text to an [`Experiment`], with errors that show the place.

use crate::experiment::{Experiment, Parameters};
use crate::relevance::{self, Need};
use crate::settings;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A settings text that cannot be used: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.render(false))]
pub struct Error {
    /// The sentence that says what is wrong and what is accepted.
    pub message: String,
    /// Where it stands, if it stands in a file.
    pub place: Option<Place>,
}

/// A place in an experiment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file's path, as it was given.
    pub path: String,
    /// The whole text.
    pub text: String,
    /// The bytes to blame.
    pub span: Range<usize>,
}

impl Error {
    fn bare(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None }
    }

    /// The error for a person: the message, and the lines of the file with a caret.
    pub fn render(&self, colour: bool) -> String {
        let Some(place) = &self.place else { return self.message.clone() };
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let end = place.span.end.min(place.text.len());
        let span = place.span.start.min(end)..end;
        renderer.render(&[Level::ERROR.primary_title(&self.message).element(
            Snippet::source(&place.text)
                .path(&place.path)
                .annotation(AnnotationKind::Primary.span(span)),
        )])
    }
}

/// One `--set KEY=VALUE`.
pub type Override = (String, String);

/// Splits `KEY=VALUE`.
///
/// # Errors
/// When there is no `=`, or nothing before it.
pub fn parse_override(text: &str) -> Result<Override, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

/// Merges built-in settings, the file, the Linux defaults if asked for, and overrides, in this
/// order, and validates the whole.
///
/// # Errors
/// [`Error`], with its place where the file is to blame.
pub fn load(
    name: &str,
    path: &str,
    text: &str,
    defaults: bool,
    overrides: &[Override],
) -> Result<Experiment, Error> {
    let blame = |message: String, span: Range<usize>| Error {
        message,
        place: Some(Place { path: path.into(), text: text.into(), span }),
    };

    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..text.len().min(1));
        let message = bare_word(text, span.start).map_or_else(
            || error.message().to_owned(),
            |word| format!("a text needs quotes: `\"{word}\"`"),
        );
        blame(message, span)
    })?;
    let mut question = None;
    let mut claims = Vec::new();
    let mut parameters = Parameters::default();
    let mut places: Vec<(String, Range<usize>)> = Vec::new();
    let mut given: Vec<Override> = Vec::new();

    for (key, value) in table.get_ref() {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("question", DeValue::String(sentence))
                if sentence.trim().is_empty() || sentence.contains(['\n', '\r']) =>
            {
                return Err(blame(
                    "`question` is one line, and says something".into(),
                    value.span(),
                ));
            }
            ("question", DeValue::String(sentence)) => question = Some(sentence.to_string()),
            ("question", _) => {
                return Err(blame("`question` is a text in quotes".into(), value.span()));
            }
            ("claims", DeValue::Array(ids)) => {
                for id in ids {
                    let DeValue::String(id) = id.get_ref() else {
                        return Err(blame("a claim's id is a text in quotes".into(), id.span()));
                    };
                    claims.push(id.to_string());
                }
            }
            ("claims", _) => {
                return Err(blame(
                    "`claims` is a list of ids, such as [\"A1\"]".into(),
                    value.span(),
                ));
            }
            (name, _) => {
                let mut leaves = Vec::new();
                flatten(name, key.span(), value, &mut leaves);
                for (key, key_span, value) in leaves {
                    let Some(text) = written(value.get_ref()).or_else(|| listed(&key, value))
                    else {
                        return Err(blame(
                            format!(
                                "`{key}` is set to something that is not a text, a whole number, true or false"
                            ),
                            value.span(),
                        ));
                    };
                    settings::apply(&mut parameters, &key, &text).map_err(|problem| {
                        let unknown = problem.starts_with("there is no setting")
                            || problem.starts_with("Linux has no sysctl");
                        let span = if unknown { key_span.clone() } else { value.span() };
                        blame(named(&key, &problem), span)
                    })?;
                    places.push((key.clone(), value.span()));
                    given.push((key, text));
                }
            }
        }
    }
    let beginning = || 0..text.len().min(1);
    let Some(question) = question else {
        let what = "the file has no question: add `question = \"…\"` (free text, shown in reports)";
        return Err(blame(what.into(), beginning()));
    };
    let has_fault = |settings: &[Override]| settings.iter().any(|(key, _)| key == "fault.kind");
    if !has_fault(&given) && !has_fault(overrides) {
        let what = "the file names no fault: add `[fault]` with `kind = \"…\"` (`none` for a live \
                    server)";
        return Err(blame(what.into(), beginning()));
    }
    let of_file = parameters.clone();

    merge(&mut parameters, defaults, overrides)?;
    parameters.validate().map_err(|(key, problem)| {
        match places.iter().find(|(placed, _)| placed == key) {
            Some((_, span)) if overrides.is_empty() => blame(named(key, &problem), span.clone()),
            _ => Error::bare(format!("{name}: {}", named(key, &problem))),
        }
    })?;
    let known = || given.iter().chain(overrides).map(|(key, value)| (&**key, &**value));
    for (key, value) in overrides {
        if let Some(need) = relevance::contradicts(key, value, &parameters, known()) {
            return Err(Error::bare(format!("--set {key}={value}: {}", useless(key, need))));
        }
    }
    // What a file has for a fault or traffic that was overridden is harmless.
    for ((key, value), (_, span)) in given.iter().zip(&places) {
        let need = relevance::contradicts(key, value, &of_file, known())
            .filter(|_| relevance::lacks(key, &parameters).is_some());
        if let Some(need) = need {
            return Err(blame(useless(key, need), span.clone()));
        }
    }
    let question = with_changes(question, &of_file, &parameters, defaults, overrides);
    Ok(Experiment { name: name.into(), question, claims, parameters })
}

/// A file's question, and what was changed in what it asks.
fn with_changes(
    question: String,
    of_file: &Parameters,
    parameters: &Parameters,
    defaults: bool,
    overrides: &[Override],
) -> String {
    let (before, after) = (settings::all(of_file), settings::all(parameters));
    let mut changes: Vec<String> = overrides
        .iter()
        .map(|(key, _)| key)
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| format!("{key} = {}", after.get(key).map_or("off", String::as_str)))
        .collect();
    if defaults && parameters.sysctl != of_file.sysctl {
        changes.insert(0, "the Linux defaults".into());
    }
    if changes.is_empty() { question } else { format!("{question} (with {})", changes.join(", ")) }
}

/// An experiment without a file: settings that were given otherwise, each with how it was given, take
/// the file's place.
///
/// # Errors
/// As for [`load`].
pub fn assemble(
    name: &str,
    question: &str,
    given: &[(&str, &str, String)],
    defaults: bool,
    overrides: &[Override],
) -> Result<Experiment, Error> {
    let mut parameters = Parameters::default();
    for (how, key, value) in given {
        settings::apply(&mut parameters, key, value)
            .map_err(|problem| Error::bare(format!("{how}: {}", named(key, &problem))))?;
    }
    merge(&mut parameters, defaults, overrides)?;
    parameters
        .validate()
        .map_err(|(key, problem)| Error::bare(format!("{name}: {}", named(key, &problem))))?;
    let of_flags = given.iter().map(|(_, key, value)| (*key, &**value));
    let known = || of_flags.clone().chain(overrides.iter().map(|(key, value)| (&**key, &**value)));
    for (key, value) in overrides {
        if let Some(need) = relevance::contradicts(key, value, &parameters, known()) {
            return Err(Error::bare(format!("--set {key}={value}: {}", useless(key, need))));
        }
    }
    Ok(Experiment { name: name.into(), question: question.into(), claims: Vec::new(), parameters })
}

/// Puts the Linux defaults and what was asked for over what a file says.
fn merge(parameters: &mut Parameters, defaults: bool, overrides: &[Override]) -> Result<(), Error> {
    if defaults {
        parameters.reset_to_linux_defaults();
    }
    for (key, value) in overrides {
        settings::apply(parameters, key, value).map_err(|problem| {
            Error::bare(format!("--set {key}={value}: {}", named(key, &problem)))
        })?;
        // What was asked for is exact.
        parameters.deadline_extends &= key != "deadline";
    }
    parameters.hold_keepalive();
    Ok(())
}

/// The word after the `=` around this byte, if it is one that is written without its quotes.
fn bare_word(text: &str, at: usize) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let before = text.get(..at)?.trim_end_matches(is_part);
    let rest = &text[before.len()..];
    let word = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
    let follows = before.trim_end_matches(' ').ends_with('=');
    (follows && word.contains(|c: char| c.is_ascii_alphabetic())).then_some(word)
}

fn useless(key: &str, need: &Need) -> String {
    format!("`{key}` matters only with {}: set that too, or leave this out", need.with)
}

fn named(key: &str, problem: &str) -> String {
    if problem.contains(key) { problem.into() } else { format!("`{key}`: {problem}") }
}

type Leaf<'a, 'i> = (String, Range<usize>, &'a Spanned<DeValue<'i>>);

/// The dotted keys below one key: `[client.keepalive] idle = "2s"` is `client.keepalive.idle`.
fn flatten<'a, 'i>(
    key: &str,
    span: Range<usize>,
    value: &'a Spanned<DeValue<'i>>,
    leaves: &mut Vec<Leaf<'a, 'i>>,
) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (name, value) in table {
                flatten(&format!("{key}.{}", name.get_ref()), name.span(), value, leaves);
            }
        }
        _ => leaves.push((key.into(), span, value)),
    }
}

/// A script as a list of steps, or a command as a list of words: one text of them all.
fn listed(key: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
    let DeValue::Array(steps) = value.get_ref() else { return None };
    let steps = steps.iter().map(|step| match step.get_ref() {
        DeValue::String(step) => Some(step.as_ref()),
        _ => None,
    });
    let steps: Vec<_> = steps.collect::<Option<_>>()?;
    match key {
        "client.script" => Some(steps.join("; ")),
        "client.command" | "server.command" | "server.ready" => {
            let words: Vec<_> = steps.into_iter().map(str::to_owned).collect();
            Some(crate::command::join(&words))
        }
        _ => None,
    }
}

fn written(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            let read = i64::from_str_radix(number.as_str(), number.radix());
            // One that is too large for anything is refused by the setting, which knows its limits.
            Some(read.map_or_else(|_| number.as_str().to_owned(), |n| n.to_string()))
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FaultKind;
    use crate::choice::Traffic;
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
        let changed = ask(false, "fault.kind", "process-crash");
        assert_eq!(changed, format!("{file} (with fault.kind = process-crash)"));
        let changed = ask(true, "client.user_timeout", "off");
        assert_eq!(changed, format!("{file} (with the Linux defaults)"));
    }

    #[test]
    fn overrides_are_blamed_by_name() {
        let cases = [
            (("client.keepalive.idle", "2"), "no unit"),
            (("fault.kind", "unplug"), "use `direct`"),
            (("fault.duration", "2s"), "matters only with the fault `flap`, `reboot` or"),
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
}
