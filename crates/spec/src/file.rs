//! Experiment files: TOML text to an [`Experiment`], with errors that show the place.

mod mend;

use crate::choice::{FaultKind, Traffic};
use crate::experiment::{Experiment, Fault, Parameters};
use crate::relevance::{self, Need};
use crate::settings;
use crate::sweep::Axis;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use mend::load_mended;

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
    let text = without_mark(text);
    let file = Text { path, text };
    let Read { question, claims, parameters: of_file, given, mend } = file.read()?;
    let has_fault = |key: &str| key == "fault.kind";
    if !given.iter().any(|one| has_fault(&one.key))
        && !overrides.iter().any(|(key, _)| has_fault(key))
    {
        let what = "the file names no fault: add `[fault]` with `kind = \"…\"` (`none` for a live \
                    server)";
        return Err(file.blame(what.into(), file.beginning()));
    }
    let mut parameters = of_file.clone();
    merge(&mut parameters, defaults, overrides)?;
    parameters.validate().map_err(|(key, problem)| {
        match given.iter().find(|one| one.key == key) {
            Some(one) if overrides.is_empty() => file.blame(named(key, &problem), one.span.clone()),
            _ => Error::bare(format!("{name}: {}", named(key, &problem))),
        }
    })?;
    let of_file_given = given.iter().map(|one| (&*one.key, &*one.value));
    let known =
        || of_file_given.clone().chain(overrides.iter().map(|(key, value)| (&**key, &**value)));
    for (key, value) in overrides {
        if let Some(need) = relevance::contradicts(key, value, &parameters, known()) {
            return Err(Error::bare(format!(
                "--set {key}={value}: {}",
                useless(key, need, &parameters)
            )));
        }
    }
    // What a file has for a fault or traffic that was overridden is harmless.
    for Given { key, value, span } in &given {
        let need = relevance::contradicts(key, value, &of_file, known())
            .filter(|_| relevance::lacks(key, &parameters).is_some());
        if let Some(need) = need {
            return Err(file.blame(useless(key, need, &parameters), span.clone()));
        }
    }
    let question = with_changes(question, &of_file, &parameters, defaults, overrides);
    let mend = mend.map(|mending| mending.mend);
    Ok(Experiment { name: name.into(), question, claims, parameters, mend })
}

/// Some editors begin a file with a byte order mark.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// What a file sweeps over: its table `[matrix]`, a list of values or a range for each key.
///
/// # Errors
/// [`Error`], with its place.
pub fn matrix(path: &str, text: &str) -> Result<Vec<Axis>, Error> {
    let text = without_mark(text);
    // What is no TOML is for [`load`] to say.
    let Ok(table) = DeTable::parse(text) else { return Ok(Vec::new()) };
    let Some((name, value)) = table.get_ref().iter().find(|(name, _)| name.get_ref() == "matrix")
    else {
        return Ok(Vec::new());
    };
    let file = Text { path, text };
    let mut leaves = Vec::new();
    flatten("", name.span(), value, &mut leaves);
    let mut found = Vec::new();
    for (key, _, value) in leaves {
        let key = key.trim_start_matches('.').to_owned();
        let axis = match value.get_ref() {
            DeValue::Array(values) if !values.is_empty() => values
                .iter()
                .map(|value| written(value.get_ref()))
                .collect::<Option<Vec<_>>>()
                .map(|values| Axis { key: key.clone(), values }),
            DeValue::String(range) => Some(
                Axis::read(&key, range)
                    .map_err(|why| file.blame(format!("`matrix.{key}`: {why}"), value.span()))?,
            ),
            _ => None,
        };
        let what = "is a list of values, as `[1, 2]`, or a range in quotes, as `\"1..15\"`";
        found.push(axis.ok_or_else(|| file.blame(format!("`matrix.{key}` {what}"), value.span()))?);
    }
    Ok(found)
}

/// The text of an experiment file.
struct Text<'a> {
    path: &'a str,
    text: &'a str,
}

/// What a file says.
struct Read {
    question: String,
    claims: Vec<String>,
    parameters: Parameters,
    given: Vec<Given>,
    mend: Option<mend::Mending>,
}

/// A setting in a file, and where its value stands.
struct Given {
    key: String,
    value: String,
    span: Range<usize>,
}

impl Text<'_> {
    fn blame(&self, message: String, span: Range<usize>) -> Error {
        Error {
            message,
            place: Some(Place { path: self.path.into(), text: self.text.into(), span }),
        }
    }

    /// Where the file as a whole is to blame.
    fn beginning(&self) -> Range<usize> {
        0..self.text.len().min(1)
    }

    fn read(&self) -> Result<Read, Error> {
        let table = DeTable::parse(self.text).map_err(|error| {
            let span = error.span().unwrap_or_else(|| self.beginning());
            let message = bare_word(self.text, span.start).map_or_else(
                || error.message().to_owned(),
                |word| format!("a text needs quotes: `\"{word}\"`"),
            );
            self.blame(message, span)
        })?;
        let (mut question, mut claims, mut mend) = (None, Vec::new(), None);
        let (mut parameters, mut given) = (Parameters::default(), Vec::new());
        for (key, value) in table.get_ref() {
            match key.get_ref().as_ref() {
                "question" => question = Some(self.sentence("question", value)?),
                "claims" => claims = self.claims(value)?,
                // See [`matrix`].
                "matrix" => {}
                "mend" => mend = Some(self.mend(key.span(), value)?),
                group => {
                    let mut leaves = Vec::new();
                    flatten(group, key.span(), value, &mut leaves);
                    for (key, key_span, value) in leaves {
                        given.push(self.setting(&mut parameters, key, key_span, value)?);
                    }
                }
            }
        }
        let question = question.ok_or_else(|| {
            let what =
                "the file has no question: add `question = \"…\"` (free text, shown in reports)";
            self.blame(what.into(), self.beginning())
        })?;
        Ok(Read { question, claims, parameters, given, mend })
    }

    fn sentence(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<String, Error> {
        let problem = match value.get_ref() {
            DeValue::String(text) if text.trim().is_empty() || text.contains(['\n', '\r']) => {
                "is one line, and says something"
            }
            DeValue::String(text) => return Ok(text.to_string()),
            _ => "is a text in quotes",
        };
        Err(self.blame(format!("`{key}` {problem}"), value.span()))
    }

    fn claims(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, Error> {
        let DeValue::Array(ids) = value.get_ref() else {
            let what = "`claims` is a list of ids, such as [\"A1\"]";
            return Err(self.blame(what.into(), value.span()));
        };
        ids.iter()
            .map(|id| match id.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                _ => Err(self.blame("a claim's id is a text in quotes".into(), id.span())),
            })
            .collect()
    }

    fn setting(
        &self,
        parameters: &mut Parameters,
        key: String,
        key_span: Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Given, Error> {
        let span = value.span();
        let Some(text) = written(value.get_ref()).or_else(|| listed(&key, value)) else {
            let what = format!(
                "`{key}` is set to something that is not a text, a whole number, true or false"
            );
            return Err(self.blame(what, span));
        };
        settings::apply(parameters, &key, &text).map_err(|problem| {
            let unknown = problem.starts_with("there is no setting")
                || problem.starts_with("Linux has no sysctl");
            let span = if unknown { key_span } else { span.clone() };
            self.blame(named(&key, &problem), span)
        })?;
        Ok(Given { key, value: text, span })
    }
}

/// A file's question; where settings were changed, one that asks about those in force.
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
    let mut at_defaults = of_file.clone();
    at_defaults.reset_to_linux_defaults();
    if defaults && settings::all(&at_defaults) != before {
        changes.insert(0, "the Linux defaults".into());
    }
    if changes.is_empty() {
        return question;
    }
    // What a file asks may speak of what was changed.
    format!("{} (with {})", fitting(parameters), changes.join(", "))
}

/// A question that fits any settings.
fn fitting(parameters: &Parameters) -> String {
    let traffic = parameters.client.traffic;
    let kind = |fault: &Fault| match fault.kind {
        FaultKind::Reject => format!("{} with {}", fault.kind, fault.reject),
        kind => kind.to_string(),
    };
    let faults: Vec<_> = parameters.faults().map(kind).collect();
    let fault = format!("Fault {}", faults.join(", then "));
    let about = if parameters.runs_command() {
        return format!("{fault}: when does this program find out, and what does it do then?");
    } else if parameters.has_web_server() {
        "when is the connection closed, and when has the kernel forgotten it?"
    } else if traffic == Traffic::Connect {
        "when does connect return, and with which result?"
    } else if parameters.client_lets_go() {
        "when does the client's kernel let go of the connection?"
    } else {
        "when does the client find out, and what is it told?"
    };
    format!("{fault}, traffic {traffic}: {about}")
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
    let by_flag = given.iter().map(|(how, key, value)| ((*how).to_owned(), *key, &**value));
    let set = |(key, value): &(String, String)| format!("--set {key}={value}");
    let by_set = overrides.iter().map(|one| (set(one), &*one.0, &*one.1));
    let all: Vec<_> = by_flag.chain(by_set).collect();
    for (how, key, value) in &all {
        let known = all.iter().map(|(_, key, value)| (*key, *value));
        if let Some(need) = relevance::contradicts(key, value, &parameters, known) {
            return Err(Error::bare(format!("{how}: {}", useless(key, need, &parameters))));
        }
    }
    let (name, question) = (name.into(), question.into());
    Ok(Experiment { name, question, claims: Vec::new(), parameters, mend: None })
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
    parameters.reboot_after_power_off();
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

fn useless(key: &str, need: &Need, parameters: &Parameters) -> String {
    let with = need.named(key, parameters);
    format!("`{key}` matters only with {with}: set that too, or leave this out")
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
        // `[[fault]]`: the first is the fault, the second `fault.2`.
        DeValue::Array(tables) if key == "fault" && !tables.is_empty() => {
            for (index, table) in tables.iter().enumerate() {
                let key = if index == 0 { key.into() } else { format!("{key}.{}", index + 1) };
                flatten(&key, table.span(), table, leaves);
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
        "client.script" | "server.script" => Some(steps.join("; ")),
        "client.command" | "server.command" | "server.ready" | "proxy.command" | "proxy.ready" => {
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
mod tests;
