//! Which socket options to choose: asks the model what they do, and searches. Pure.
//!
//! [`advise`] goes from a demand to options, [`Detection`] and [`Survived`] from options to what they do,
//! [`review`] from a line of a configuration to options and what is wrong with them, [`worst()`] from an
//! experiment to the moment at which what it requires fails.

mod case;
mod demand;
mod detection;
mod knobs;
mod options;
mod review;
mod search;
mod settings;
mod worst;

pub use case::{Case, Moment};
pub use demand::{Busy, Demand, Path};
pub use detection::{Detection, Survived};
pub use knobs::{Ecosystem, Snippet, ecosystems, of_process};
pub use options::{BySysctl, Keepalive, Options};
pub use review::{Finding, Kind, Reading, review};
pub use search::{Advice, Chosen, Nearest, Without, advise, meets, worst_cases};
pub use worst::worst;
