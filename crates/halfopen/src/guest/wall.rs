//! Where the wall time of a guest goes, for the operator: `HALFOPEN_LOG=info`.

use crate::channel::Message;
use std::time::{Duration, Instant};
use timeline::What;
use timeline::event::Phase;

/// When the guest's reports came.
pub(super) struct WallTime {
    began: Instant,
    booted: Option<Instant>,
    connected: Option<Instant>,
    knew: Option<Instant>,
    finished: Option<Instant>,
}

impl WallTime {
    pub(super) fn start() -> Self {
        Self { began: Instant::now(), booted: None, connected: None, knew: None, finished: None }
    }

    /// Whether this is logged.
    pub(super) fn is_wanted() -> bool {
        tracing::enabled!(tracing::Level::INFO)
    }

    /// Takes one report. Of many trials the last one counts.
    pub(super) fn take(&mut self, line: &[u8]) {
        let moment = match serde_json::from_slice(line) {
            Ok(Message::Started(..)) if self.booted.is_none() => &mut self.booted,
            Ok(Message::Finished) => &mut self.finished,
            Ok(Message::Event(_, event)) => match event.what {
                What::Phase(Phase::Connected) => &mut self.connected,
                What::Phase(Phase::Aftermath) => &mut self.knew,
                _ => return,
            },
            _ => return,
        };
        *moment = Some(Instant::now());
    }

    /// Says where it went.
    pub(super) fn tell(&self, peak_rss_kib: u64) {
        tracing::info!("{} · the guest's memory: {} MiB", self.stages(), peak_rss_kib / 1024);
    }

    fn stages(&self) -> String {
        let stages = [
            ("boot", self.booted),
            ("until the last trial was connected", self.connected),
            ("until the last client knew", self.knew),
            ("taking down", self.finished),
            ("shutting down", Some(Instant::now())),
        ];
        let mut since = self.began;
        let mut told = Vec::new();
        for (stage, until) in stages {
            let Some(until) = until else { continue };
            told.push(format!("{stage} {}", seconds(until.saturating_duration_since(since))));
            since = until.max(since);
        }
        format!("wall time: {}", told.join(", "))
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}
