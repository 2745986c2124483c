//! The experiments: those built into the executable, and files.

use anyhow::{Result, anyhow};
use spec::Experiment;
use spec::file::{Override, load};
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
    let load = |name: &str, path: &str, text: &str| {
        load(name, path, text, defaults, overrides).map_err(|error| anyhow!(error.render(colour)))
    };
    let built_in = BUILT_IN.iter().find(|(name, _)| *name == name_or_file);
    if let Some((name, text)) = built_in {
        return load(name, &format!("experiments/{name}.toml"), text);
    }
    let path = Path::new(name_or_file);
    let looks_like_a_file = path.extension().is_some() || name_or_file.contains('/');
    if !looks_like_a_file && !path.is_file() {
        let known = BUILT_IN.iter().map(|(name, _)| *name);
        let hint = nearest(name_or_file, known).map_or_else(
            || "`halfopen list` shows them all".to_owned(),
            |near| format!("is it `{near}`?"),
        );
        return Err(anyhow!("there is no experiment `{name_or_file}`: {hint}"));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| anyhow!("reading the experiment file {name_or_file}: {error}"))?;
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("experiment");
    load(stem, name_or_file, &text)
}
