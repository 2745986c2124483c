//! The experiments: those built into the executable, and files.

use crate::output;
use anyhow::{Result, anyhow, bail};
use spec::Experiment;
use spec::file::{Override, load, load_mended, matrix};
use spec::settings;
use spec::sweep::{Axis, product};
use spec::sysctl::nearest;
use std::path::Path;

/// Name and text of every experiment in `experiments/`.
pub(crate) const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

/// The experiment by this name or in this file, with `--defaults` and `--set` applied.
///
/// # Errors
/// For a person: an unknown name with the nearest, an unreadable file, a bad setting with its place.
pub(crate) fn find(
    name_or_file: &str,
    defaults: bool,
    overrides: &[Override],
    colour: bool,
) -> Result<Experiment> {
    check_once(overrides)?;
    Source::read(name_or_file)?.experiment(defaults, overrides, colour)
}

/// Every experiment that is built in.
///
/// # Errors
/// One of them cannot be read.
pub(crate) fn all() -> Result<Vec<Experiment>> {
    let colour = output::colour(&std::io::stderr());
    BUILT_IN.iter().map(|(name, _)| find(name, false, &[], colour)).collect()
}

/// The text of an experiment.
struct Source {
    name: String,
    path: String,
    text: String,
}

impl Source {
    fn read(name_or_file: &str) -> Result<Self> {
        if let Some((name, text)) = built_in(name_or_file) {
            let path = format!("experiments/{name}.toml");
            return Ok(Self { name: name.into(), path, text: text.into() });
        }
        let path = Path::new(name_or_file);
        let looks_like_a_file = path.extension().is_some() || name_or_file.contains('/');
        if !looks_like_a_file && !path.is_file() {
            return Err(no_such(name_or_file));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| anyhow!("reading the experiment file {name_or_file}: {error}"))?;
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("experiment");
        Ok(Self { name: stem.into(), path: name_or_file.into(), text })
    }

    fn experiment(
        &self,
        defaults: bool,
        overrides: &[Override],
        colour: bool,
    ) -> Result<Experiment> {
        let experiment = load(&self.name, &self.path, &self.text, defaults, overrides)
            .map_err(|error| anyhow!(error.render(colour)))?;
        known_claims(&experiment)?;
        Ok(experiment)
    }

    /// The same with what the file says that mends it.
    fn mended(
        &self,
        defaults: bool,
        overrides: &[Override],
        colour: bool,
    ) -> Result<Option<Experiment>> {
        load_mended(&self.name, &self.path, &self.text, defaults, overrides)
            .map_err(|error| anyhow!(error.render(colour)))
    }

    /// Every combination of what the file sweeps over and what was asked for, which comes first.
    fn points(&self, overrides: &[Override], colour: bool) -> Result<Vec<Vec<Override>>> {
        let of_file =
            matrix(&self.path, &self.text).map_err(|error| anyhow!(error.render(colour)))?;
        let asked = |axis: &Axis| overrides.iter().any(|(key, _)| plain(key) == plain(&axis.key));
        let mut axes: Vec<_> = of_file.into_iter().filter(|axis| !asked(axis)).collect();
        axes.extend(self::axes(overrides)?);
        product(&axes).map_err(|why| anyhow!("{}: {why}", self.name))
    }
}

/// Every combination of the values that were asked for.
///
/// # Errors
/// For a person: what is no list and no range, a setting that is given twice, too many.
pub(crate) fn points(overrides: &[Override]) -> Result<Vec<Vec<Override>>> {
    check_once(overrides)?;
    product(&axes(overrides)?).map_err(|why| anyhow!(why))
}

fn axes(overrides: &[Override]) -> Result<Vec<Axis>> {
    overrides
        .iter()
        .map(|(key, text)| {
            Axis::read(key, text).map_err(|why| anyhow!("--set {key}={text}: {why}"))
        })
        .collect()
}

/// A key by its shortest name.
fn plain(key: &str) -> String {
    key.replace("sysctl.net.ipv4.", "sysctl.")
}

/// The text of a built-in experiment's file.
///
/// # Errors
/// For a person: an unknown name with the nearest.
pub(crate) fn text(name: &str) -> Result<&'static str> {
    built_in(name).map(|(_, text)| text).ok_or_else(|| no_such(name))
}

fn built_in(name: &str) -> Option<(&'static str, &'static str)> {
    BUILT_IN.iter().find(|(known, _)| *known == name).copied()
}

fn no_such(name: &str) -> anyhow::Error {
    anyhow!("there is no experiment `{name}`: {}", meant(name))
}

/// The experiments that a command names, with its settings, one for each combination of these, and
/// after each, if `mended`, the one with its file's mend; says what `--defaults` leaves out.
///
/// # Errors
/// As [`find`], or that a setting is given twice.
pub(crate) fn find_all(
    names: &[impl AsRef<str>],
    defaults: bool,
    overrides: &[Override],
    mended: bool,
) -> Result<Vec<Experiment>> {
    check_once(overrides)?;
    let colour = output::colour(&std::io::stderr());
    let mut found = Vec::new();
    for name in names {
        let source = Source::read(name.as_ref())?;
        for (at, point) in source.points(overrides, colour)?.iter().enumerate() {
            let experiment = source.experiment(defaults, point, colour)?;
            if defaults
                && at == 0
                && let Some(note) = left_out(name.as_ref(), &experiment, point)
            {
                eprintln!("{note}");
            }
            found.push(experiment);
            if mended {
                found.extend(source.mended(defaults, point, colour)?);
            }
        }
    }
    Ok(found)
}

/// Which of a file's own settings `--defaults` has replaced.
fn left_out(name: &str, with: &Experiment, overrides: &[Override]) -> Option<String> {
    // Without the defaults it may be no valid experiment: then there is nothing to compare.
    let without = find(name, false, overrides, false).ok()?;
    let with = settings::all(&with.parameters);
    let put_back: Vec<_> = settings::all(&without.parameters)
        .into_iter()
        .filter(|(key, value)| key != "deadline" && with.get(key) != Some(value))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    (!put_back.is_empty()).then(|| {
        format!(
            "--defaults replaces settings of {}: {} (to keep one, give it with --set)",
            without.name,
            put_back.join(", ")
        )
    })
}

/// A setting may be given once: of two, one would be ignored without a word.
fn check_once(overrides: &[Override]) -> Result<()> {
    for (at, (key, value)) in overrides.iter().enumerate() {
        if let Some((_, first)) =
            overrides[..at].iter().find(|(other, _)| plain(other) == plain(key))
        {
            bail!("--set {key} is given twice, {first} and {value}: leave one of them out");
        }
    }
    Ok(())
}

/// That the claims which an experiment says it tests exist.
fn known_claims(experiment: &Experiment) -> Result<()> {
    let claims = verdict::claims::Catalogue::built_in().claims;
    let known: Vec<String> = claims.into_iter().map(|claim| claim.id).collect();
    let Some(unknown) = experiment.claims.iter().find(|id| !known.contains(id)) else {
        return Ok(());
    };
    let hint = nearest(unknown, known.iter().map(String::as_str))
        .map_or_else(|| known.join(", "), |near| format!("is it `{near}`?"));
    Err(anyhow!("{}: `claims`: there is no claim `{unknown}`: {hint}", experiment.name))
}

/// Which experiments may have been meant.
fn meant(given: &str) -> String {
    let known = || BUILT_IN.iter().map(|(name, _)| *name);
    let all = "`halfopen list` shows them all";
    if given.len() < NAMED_LEAST {
        return all.into();
    }
    let mut containing = known().filter(|name| name.contains(given));
    let only = containing.next().filter(|_| containing.next().is_none());
    if let Some(near) = only.or_else(|| nearest(given, known())) {
        return format!("is it `{near}`?");
    }
    let words: Vec<_> = given.split('-').filter(|word| !word.is_empty()).collect();
    let has_words = |name: &&str| words.iter().all(|word| name.split('-').any(|w| w == *word));
    let mut alike: Vec<_> = known().filter(|name| name.starts_with(given)).collect();
    if alike.is_empty() {
        alike = known().filter(|name| name.contains(given)).collect();
    }
    if alike.is_empty() {
        alike = known().filter(has_words).collect();
    }
    // The plainest first.
    alike.sort_by_key(|name| name.len());
    let alike: Vec<_> = alike.iter().map(|name| format!("`{name}`")).collect();
    match alike.as_slice() {
        [] => all.into(),
        _ if words.is_empty() => all.into(),
        [one] => format!("is it {one}?"),
        [some @ .., last] if some.len() < MEANT_MOST => {
            format!("is it {} or {last}?", some.join(", "))
        }
        some => {
            format!("is it {}, …? {} match, and {all}", some[..3].join(", "), some.len())
        }
    }
}

/// More names than this are no hint.
const MEANT_MOST: usize = 4;
/// A shorter text stands in too many names.
const NAMED_LEAST: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_given_twice_is_refused_by_its_key() {
        let set = |keys: &[&str]| -> Vec<Override> {
            keys.iter().zip(3..).map(|(key, value)| ((*key).into(), value.to_string())).collect()
        };
        let twice = set(&["sysctl.tcp_retries2", "deadline", "sysctl.net.ipv4.tcp_retries2"]);
        let error = find("host-crash-sending", false, &twice, false).unwrap_err().to_string();
        assert!(error.contains("sysctl.net.ipv4.tcp_retries2 is given twice, 3 and 5"), "{error}");
        assert!(check_once(&set(&["sysctl.tcp_retries2", "server.sysctl.tcp_retries2"])).is_ok());
    }

    #[test]
    fn what_the_defaults_leave_out_is_named() {
        let note = |overrides: &[Override]| {
            let experiment = find("host-crash-sending", true, overrides, false).unwrap();
            left_out("host-crash-sending", &experiment, overrides)
        };
        let said = note(&[]).unwrap();
        assert!(said.contains("sysctl.tcp_retries2=5"), "{said}");
        assert_eq!(note(&[("sysctl.tcp_retries2".into(), "5".into())]), None);
    }

    /// Each of them says what its user can do about it, and that is an experiment too.
    #[test]
    fn every_program_has_its_mend_or_the_reason_why_not() {
        let mut count = 0;
        for directory in ["programs", "proxies"] {
            let path =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments").join(directory);
            let files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
            for file in files.filter(|file| file.extension().is_some_and(|end| end == "toml")) {
                let file = file.display().to_string();
                let found =
                    find_all(&[&file], true, &[], true).unwrap_or_else(|why| panic!("{why}"));
                let nothing = matches!(found[0].mend, Some(spec::Mend::Nothing(_)));
                assert_eq!(found.len(), if nothing { 1 } else { 2 }, "{file}");
                count += 1;
            }
        }
        assert!(count >= 30, "{count}");
    }

    #[test]
    fn a_name_comes_before_those_that_it_begins() {
        let at = |name| BUILT_IN.iter().position(|(known, _)| *known == name).unwrap();
        assert!(at("close-frozen-server") < at("close-frozen-server-61"));
        assert!(at("host-crash-sending") < at("host-crash-sending-behind-router"));
    }

    #[test]
    fn a_name_that_is_not_one_leads_to_those_that_are() {
        for (given, expected) in [
            ("host-crash-sendin", "is it `host-crash-sending`?"),
            (
                "zero-window",
                "is it `zero-window-alive`, `zero-window-host-crash` or `zero-window-user-timeout`?",
            ),
            ("no-keepalive", "is it `host-crash-idle-no-keepalive`?"),
            ("crash-linger", "is it `process-crash-linger`?"),
            ("idle-process", "is it `process-crash-idle` or `process-freeze-idle-keepalive`?"),
            ("qwertyuiop", "`halfopen list` shows them all"),
            ("-", "`halfopen list` shows them all"),
        ] {
            assert_eq!(meant(given), expected, "{given}");
        }
        let many = meant("host-crash");
        assert!(
            many.starts_with("is it `host-crash-sending`, ") && many.contains("halfopen list"),
            "{many}"
        );
    }
}
