//! The experiments that stand for what can happen to a connection.

use crate::{Options, Path};
use model::Prediction;
use spec::{Experiment, Outcome, duration};
use std::time::Duration;

/// One thing that happens to a connection with given options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// The peer's host loses power.
    Lost(Moment),
    /// The path goes away for so long, and comes back.
    Outage(Moment, Duration),
    /// A middlebox forgets the flow after so long.
    Forgotten(Duration),
}

/// What the connection does when it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It is idle; it begins so long after the last segment received.
    Idle(Duration),
    /// It writes, so long after the beginning.
    Writes(Duration),
}

/// Idle; the last exchange was just before.
pub(crate) const SOON_IDLE: Moment = Moment::Idle(Duration::from_millis(200));
/// A write at once.
pub(crate) const AT_ONCE: Moment = Moment::Writes(Duration::ZERO);

impl Case {
    /// The experiment; `require` is a requirement of it, by key.
    ///
    /// # Errors
    /// Settings that an experiment does not take, in words.
    pub fn experiment(
        self,
        options: &Options,
        path: &Path,
        require: Option<(&'static str, String)>,
    ) -> Result<Experiment, String> {
        let mut settings = options.settings();
        let (name, question) = match self {
            Self::Lost(moment) => {
                settings.push(("fault.kind", "power-off".into()));
                match moment {
                    Moment::Idle(_) => (
                        "advise-lost-idle",
                        "The peer's host loses power, and the client is idle: is it found out in time?",
                    ),
                    Moment::Writes(_) => (
                        "advise-lost-sending",
                        "The peer's host loses power, and the client writes: is it found out in time?",
                    ),
                }
            }
            Self::Outage(moment, lasts) => {
                settings.push(("fault.kind", "flap".into()));
                settings.push(("fault.duration", duration::show(lasts)));
                match moment {
                    Moment::Idle(_) => (
                        "advise-outage-idle",
                        "The path is down for a while, and the client is idle: does the connection live on?",
                    ),
                    Moment::Writes(_) => (
                        "advise-outage-sending",
                        "The path is down for a while, and the client writes: does the connection live on?",
                    ),
                }
            }
            Self::Forgotten(after) => {
                settings.push(("topology", "router".into()));
                settings.push(("fault.kind", "forget".into()));
                settings.push(("fault.idle", duration::show(after)));
                ("advise-forgotten", "A middlebox forgets idle flows: does keepalive come before?")
            }
        };
        settings.extend(self.moment().settings());
        if !path.rtt.is_zero() {
            settings.push(("path.rtt", duration::show(path.rtt)));
        }
        settings.extend(require);
        let overrides: Vec<_> =
            settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        spec::file::assemble(name, question, &[], true, &overrides).map_err(|error| error.message)
    }

    /// What the model says of it.
    pub(crate) fn predict(self, options: &Options, path: &Path) -> Option<Prediction> {
        let experiment = self.experiment(options, path, None).ok()?;
        let mut facts = model::nominal_facts(&experiment.parameters, path.hz);
        facts.kernel = format!("{}.{}", path.kernel.0, path.kernel.1);
        let prediction = model::predict(&experiment.parameters, &facts);
        prediction.unknown.is_none().then_some(prediction)
    }

    /// Whether the connection lives on, at every phase of the kernel's timers.
    pub(crate) fn is_survived(self, options: &Options, path: &Path) -> bool {
        self.predict(options, path).is_some_and(|prediction| {
            prediction.windows.iter().all(|window| window.outcome == Outcome::None)
        })
    }

    fn moment(self) -> Moment {
        match self {
            Self::Lost(moment) | Self::Outage(moment, _) => moment,
            Self::Forgotten(_) => Moment::Idle(Duration::ZERO),
        }
    }
}

impl Moment {
    fn settings(self) -> Vec<(&'static str, String)> {
        match self {
            Self::Idle(after) => {
                vec![("client.traffic", "idle".into()), ("fault.after", duration::show(after))]
            }
            Self::Writes(after) if after.is_zero() => {
                vec![("client.traffic", "one-write".into())]
            }
            Self::Writes(after) => vec![
                ("client.traffic", "script".into()),
                ("client.script", format!("wait {}; write 100", duration::show(after))),
            ],
        }
    }
}
