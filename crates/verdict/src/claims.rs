//! The claims, and the trials that are their evidence: `claims.toml`.

use serde::Deserialize;
use std::collections::BTreeMap;

/// Claims and the variations of experiments that are their evidence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// The claims, in the order in which they are reported.
    #[serde(rename = "claim")]
    pub claims: Vec<Claim>,
    #[serde(rename = "variation")]
    variations: BTreeMap<String, Variation>,
}

/// What the source "the article" is.
pub const ARTICLE: &str = "a well-known explanation of what a TCP client sees when its server dies: a \
    killed process, a host without power, keepalive; its sentences are paraphrased here";

/// A sentence that can be true or false on a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// `C2`.
    pub id: String,
    /// The sentence, paraphrased.
    pub says: String,
    /// Who says so.
    pub source: String,
    /// The labels of the trials that are its evidence.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// Why there is no evidence, if there is none.
    #[serde(default)]
    pub untested: Option<String>,
}

/// An experiment with other settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variation {
    experiment: String,
    #[serde(default)]
    set: Vec<String>,
    #[serde(default)]
    short: Vec<String>,
    #[serde(default)]
    defaults: Vec<String>,
    only: Option<Settings>,
    /// Whether it is made on every virtual kernel there is, and not on the usual one alone.
    #[serde(default)]
    every_hz: bool,
}

/// Which settings a trial was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settings {
    /// Those of the experiment's file, short enough to wait for: on the real clock.
    Short,
    /// The Linux defaults, in virtual time.
    Defaults,
}

/// A trial to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What claims call it.
    pub label: String,
    /// The experiment.
    pub experiment: String,
    /// `KEY=VALUE` each.
    pub overrides: Vec<String>,
}

impl Claim {
    /// Whether the article says it, and not another source.
    pub fn is_of_the_article(&self) -> bool {
        self.source == "the article"
    }
}

impl Catalogue {
    /// The catalogue that comes with the program.
    ///
    /// # Panics
    /// Never in a build that passed its tests: the text is part of the program.
    pub fn built_in() -> Self {
        toml::from_str(include_str!("../claims.toml")).expect("claims.toml is well formed")
    }

    /// Every trial that some claim rests on, once, in the order of the claims.
    pub fn pieces(&self, settings: Settings) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        for label in self.claims.iter().flat_map(|claim| &claim.evidence) {
            if pieces.iter().any(|piece| piece.label == *label) {
                continue;
            }
            pieces.extend(self.piece(label, settings));
        }
        pieces
    }

    /// The trials, at the Linux defaults, that claims want from the virtual kernels of other HZ too.
    pub fn pieces_at_every_hz(&self) -> Vec<Piece> {
        let mut pieces = self.pieces(Settings::Defaults);
        pieces.retain(|piece| self.variations.get(&piece.label).is_some_and(|v| v.every_hz));
        pieces
    }

    /// The trial by its label; `None` if it is not made with these settings.
    fn piece(&self, label: &str, settings: Settings) -> Option<Piece> {
        let label = label.to_owned();
        let Some(variation) = self.variations.get(&label) else {
            return Some(Piece { experiment: label.clone(), label, overrides: Vec::new() });
        };
        if variation.only.is_some_and(|only| only != settings) {
            return None;
        }
        let own = match settings {
            Settings::Short => &variation.short,
            Settings::Defaults => &variation.defaults,
        };
        let overrides = variation.set.iter().chain(own).cloned().collect();
        Some(Piece { label, experiment: variation.experiment.clone(), overrides })
    }

    /// The claims that rest on an experiment, whatever its settings.
    pub fn about(&self, experiment: &str) -> Vec<&str> {
        let rests = |claim: &&Claim| {
            claim.evidence.iter().any(|label| {
                self.variations.get(label).map_or(label.as_str(), |v| &v.experiment) == experiment
            })
        };
        self.claims.iter().filter(rests).map(|claim| claim.id.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_catalogue_is_whole() {
        let catalogue = Catalogue::built_in();
        let ids: BTreeSet<_> = catalogue.claims.iter().map(|claim| &claim.id).collect();
        assert_eq!(ids.len(), catalogue.claims.len(), "each id once");
        for claim in &catalogue.claims {
            assert_eq!(claim.evidence.is_empty(), claim.untested.is_some(), "{}", claim.id);
        }
        let used: BTreeSet<_> = catalogue.claims.iter().flat_map(|claim| &claim.evidence).collect();
        for (label, variation) in &catalogue.variations {
            assert!(used.contains(label), "nobody uses the variation {label}");
            let of_one_clock = variation.only == Some(Settings::Defaults);
            assert!(
                !variation.every_hz || of_one_clock,
                "{label}: only virtual kernels have an HZ"
            );
        }
    }

    #[test]
    fn some_trials_are_made_at_every_hz() {
        let pieces = Catalogue::built_in().pieces_at_every_hz();
        let made: Vec<_> = pieces.iter().map(|piece| piece.experiment.as_str()).collect();
        assert_eq!(made, ["host-crash-sending", "host-crash-idle-keepalive"]);
        let usual = Catalogue::built_in().pieces(Settings::Defaults);
        assert!(
            pieces.iter().all(|piece| usual.contains(piece)),
            "the usual kernel makes them too"
        );
    }

    #[test]
    fn a_trial_is_made_once_with_the_settings_of_its_clock() {
        let catalogue: Catalogue = toml::from_str(
            r#"
            claim = [
                { id = "1", says = "", source = "", evidence = ["plain", "long"] },
                { id = "2", says = "", source = "", evidence = ["plain"] },
            ]
            [variation.long]
            experiment = "plain"
            set = ["a=1"]
            defaults = ["b=2"]
            only = "defaults"
            "#,
        )
        .unwrap();
        let piece = |label: &str, overrides: &[&str]| Piece {
            label: label.into(),
            experiment: "plain".into(),
            overrides: overrides.iter().map(|text| (*text).to_owned()).collect(),
        };
        assert_eq!(catalogue.pieces(Settings::Short), [piece("plain", &[])]);
        assert_eq!(
            catalogue.pieces(Settings::Defaults),
            [piece("plain", &[]), piece("long", &["a=1", "b=2"])]
        );
        assert_eq!(catalogue.about("plain"), ["1", "2"]);
    }
}
