//! What the user of an experiment's program can set to find out sooner.

use serde::{Deserialize, Serialize};

/// What the table `[mend]` of an experiment file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mend {
    /// The one setting, as its user writes it. A trial of its own has it.
    With(String),
    /// Nothing has to be set, or nothing can be: why.
    Nothing(String),
    /// This trial has the setting.
    Applied(String),
}

impl Mend {
    /// The setting as its user writes it, or why there is none.
    pub fn text(&self) -> &str {
        match self {
            Self::With(text) | Self::Nothing(text) | Self::Applied(text) => text,
        }
    }
}

/// The name of the trial that has the mend of the experiment of this name.
pub fn mended_name(name: &str) -> String {
    format!("{name}-mended")
}
