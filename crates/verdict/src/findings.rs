//! What judged trials say about a claim.
//!
//! Each claim has a rule: a function from its exhibits to a [`Finding`], whose figures are those of
//! the exhibits. A trial whose fault is not proved, or that was disturbed, is no exhibit; where a
//! rule lacks one that it needs, the claim is not tested, and the finding says why.

mod bounds;
mod busy;
mod crash;
mod elsewhere;
mod ends;
mod exhibit;
mod idle;
mod web_server;
mod window;

use serde::Serialize;
use std::fmt;

pub use exhibit::{Bench, Exhibit};

/// What the evidence says about a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its standing.
    pub standing: Standing,
    /// In a sentence or two, with figures.
    pub text: String,
    /// Figures that are better seen side by side.
    pub table: Option<Table>,
}

/// A small table of figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Table {
    /// What each column has.
    pub head: Vec<String>,
    /// The rows, a cell for each column.
    pub rows: Vec<Vec<String>>,
}

/// How a claim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// As it was said.
    Holds,
    /// Only so far as the finding says.
    HoldsWithACondition,
    /// Something else happens.
    DoesNotHold,
    /// Nothing that could be held against it.
    NotTested,
}

impl fmt::Display for Standing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Holds => "holds",
            Self::HoldsWithACondition => "holds with a condition",
            Self::DoesNotHold => "does not hold",
            Self::NotTested => "not tested",
        })
    }
}

/// A rule: the finding, or why the exhibits do not suffice for one.
type Rule = fn(&Bench<'_>) -> Result<Finding, String>;

/// The rules by the claims' ids.
const RULES: &[(&str, Rule)] = &[
    ("A1", crash::a_kernel_says_goodbye),
    ("A2", crash::four_steps),
    ("B1", busy::silence),
    ("B2", busy::retransmits_and_tells),
    ("C1", busy::retries2_is_15),
    ("C2", busy::a_time_not_a_count),
    ("C3", busy::timeouts_double),
    ("C4", bounds::of_the_timeout),
    ("C5", busy::fifteen_fit),
    ("C6", busy::fewer_fit),
    ("C7", busy::told_at_the_threshold),
    ("D1", idle::established_for_ever),
    ("D2", idle::established_says_nothing),
    ("E1", idle::a_live_peer_answers),
    ("E2", idle::reported_dead),
    ("E3", idle::keepalive_defaults),
    ("E4", idle::two_hours_eleven),
    ("E5", idle::not_without_the_option),
    ("E6", idle::a_probe_is_empty),
    ("F1", idle::a_probe_of_its_own),
    ("F2", web_server::closes_in_time),
    ("G-reboot", elsewhere::reboot),
    ("G-new-mac", elsewhere::new_mac),
    ("G-freeze", elsewhere::freeze),
    ("G-user-timeout", elsewhere::user_timeout),
    ("G-user-timeout-idle", elsewhere::user_timeout_idle),
    ("G-user-timeout-5s", |bench| {
        elsewhere::keepalive_trace(bench, "host-crash-idle-keepalive-user-timeout-5s", 1, 12.233)
    }),
    ("G-user-timeout-12s", |bench| {
        elsewhere::keepalive_trace(bench, "host-crash-idle-keepalive-user-timeout-12s", 2, 23.102)
    }),
    ("G-user-timeout-30s", elsewhere::user_timeout_30s),
    ("G-keepalive-5-3-3", |bench| {
        elsewhere::keepalive_trace(bench, "host-crash-idle-keepalive-5-3-3", 3, 14.299)
    }),
    ("G-busy-15", elsewhere::busy_15),
    ("G-silenced", elsewhere::silenced),
    ("G-zero-window", window::alive),
    ("G-zero-window-dead", window::dead),
    ("G-zero-window-user-timeout", window::user_timeout),
    ("G-unsent", window::unsent),
    ("G-syn", ends::syn),
    ("G-orphan", ends::orphan),
    ("G-fin-timeout", ends::fin_timeout),
    ("G-flap", elsewhere::flap),
    ("G-drop", elsewhere::firewall_drop),
    ("G-reject", elsewhere::reject),
    ("G-router", elsewhere::router),
    ("G-neighbour", elsewhere::neighbour),
    ("G-unplug", elsewhere::unplug),
    ("G-rto-max", elsewhere::rto_max),
];

/// What the exhibits say about the claim with this id.
pub fn find(claim: &crate::claims::Claim, bench: &Bench<'_>) -> Finding {
    let rule = RULES.iter().find(|(id, _)| *id == claim.id);
    match (&claim.untested, rule) {
        (Some(why), _) => Finding::new(Standing::NotTested, why.clone()),
        (None, None) => Finding::new(Standing::NotTested, "there is no rule for it"),
        (None, Some((_, rule))) => {
            rule(bench).unwrap_or_else(|why| Finding::new(Standing::NotTested, why))
        }
    }
}

impl Finding {
    fn new(standing: Standing, text: impl Into<String>) -> Self {
        Self { standing, text: text.into(), table: None }
    }

    /// Holds if `so`, and does not otherwise.
    fn holds_if(so: bool, text: impl Into<String>) -> Self {
        Self::new(if so { Standing::Holds } else { Standing::DoesNotHold }, text)
    }

    /// Holds if nothing restricts it; `conditions` are added to the text, a sentence each.
    fn with_conditions(text: impl Into<String>, conditions: &[String]) -> Self {
        let standing =
            if conditions.is_empty() { Standing::Holds } else { Standing::HoldsWithACondition };
        let mut text = text.into();
        for condition in conditions {
            text.push(' ');
            text.push_str(condition);
        }
        Self::new(standing, text)
    }
}

#[cfg(test)]
mod tests;
