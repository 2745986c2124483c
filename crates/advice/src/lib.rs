//! Which socket options to choose: asks the model what they do, and searches. Pure.
//!
//! [`advise`] goes from a demand to options, [`Outlook`] and [`Survived`] from options to what they do,
//! [`review`] from a line of a configuration to options and what is wrong with them, [`worst()`] from an
//! experiment to the moment at which what it requires fails.

mod case;
mod demand;
mod knobs;
mod options;
mod outlook;
mod review;
mod search;
mod settings;
mod worst;

pub use case::{Case, Moment};
pub use demand::{Busy, Demand, Path};
pub use knobs::{Ecosystem, Snippet, ecosystems};
pub use options::{Keepalive, Options};
pub use outlook::{Found, Outlook, Survived};
pub use review::{Finding, Kind, Reading, review};
pub use search::{Advice, Chosen, Nearest, advise};
pub use worst::worst;
