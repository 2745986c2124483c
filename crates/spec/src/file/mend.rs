//! The table `[mend]` of an experiment file.

use super::{Error, Given, Text, flatten, named, useless};
use crate::experiment::{Experiment, Parameters};
use crate::file::Override;
use crate::mend::{Mend, mended_name};
use crate::{relevance, settings};
use std::ops::Range;
use toml::Spanned;
use toml::de::DeValue;

/// What the table says, and what it sets.
pub(super) struct Mending {
    pub(super) mend: Mend,
    given: Vec<Given>,
}

/// An experiment with the setting of its file's table `[mend]` on top of everything else; `None`: the
/// file has none.
///
/// # Errors
/// As for [`super::load`].
pub fn load_mended(
    name: &str,
    path: &str,
    text: &str,
    defaults: bool,
    overrides: &[Override],
) -> Result<Option<Experiment>, Error> {
    let file = Text { path, text };
    let read = file.read()?;
    let Some(Mending { mend: Mend::With(what), given }) = read.mend else { return Ok(None) };
    let Experiment { question, claims, mut parameters, .. } =
        super::load(name, path, text, defaults, overrides)?;
    for Given { key, value, span } in &given {
        settings::apply(&mut parameters, key, value)
            .map_err(|problem| file.blame(named(key, &problem), span.clone()))?;
    }
    parameters.validate().map_err(|(key, problem)| {
        let blamed = given.iter().find(|one| one.key == key);
        let span = blamed.map_or_else(|| file.beginning(), |one| one.span.clone());
        file.blame(format!("mended, {}", named(key, &problem)), span)
    })?;
    for Given { key, span, .. } in &given {
        if let Some(need) = relevance::lacks(key, &parameters) {
            return Err(file.blame(useless(key, need, &parameters), span.clone()));
        }
    }
    let question = format!("{question} (mended: {what})");
    let (name, mend) = (mended_name(name), Some(Mend::Applied(what)));
    Ok(Some(Experiment { name, question, claims, parameters, mend }))
}

impl Text<'_> {
    pub(super) fn mend(
        &self,
        place: Range<usize>,
        table: &Spanned<DeValue<'_>>,
    ) -> Result<Mending, Error> {
        let mut leaves = Vec::new();
        flatten("", place.clone(), table, &mut leaves);
        // What it sets is held against the experiment when its trial is made.
        let mut alone = Parameters::default();
        let (mut what, mut nothing, mut given) = (None, None, Vec::new());
        for (key, span, value) in leaves {
            match key.trim_start_matches('.') {
                "what" => what = Some(self.sentence("mend.what", value)?),
                "none" => nothing = Some(self.sentence("mend.none", value)?),
                key => given.push(self.setting(&mut alone, key.to_owned(), span, value)?),
            }
        }
        let mend = match (what, nothing) {
            (Some(what), None) if !given.is_empty() => Mend::With(what),
            (None, Some(why)) if given.is_empty() => Mend::Nothing(why),
            (Some(_), None) => {
                let missing = "`[mend]` sets nothing: add what it sets, such as \
                               `client.command = […]`";
                return Err(self.blame(missing.into(), place));
            }
            _ => {
                let accepted = "`[mend]` has either `what = \"…\"`, the setting as its user writes it, \
                                and what it sets, or `none = \"…\"` alone, the reason";
                return Err(self.blame(accepted.into(), place));
            }
        };
        Ok(Mending { mend, given })
    }
}
