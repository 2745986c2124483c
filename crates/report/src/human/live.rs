//! The timeline as things happen.

use crate::human::paint::Paint;
use crate::human::row;
use crate::story::{Item, Story};
use crate::words;
use model::Prediction;
use spec::Parameters;
use timeline::Event;

/// Prints a trial while it runs: feed it events, and take the lines that are ready.
///
/// A line comes a few hundredths of a second after its event (and a round-trip time more, where
/// one was added): until then, it is unknown whether its frame arrived. Call [`Self::lines`] every
/// so often.
#[derive(Debug, Clone)]
pub struct Live {
    paint: Paint,
    story: Story,
    hosts: [&'static str; 2],
    /// What times count from.
    origin_ns: Option<u64>,
}

impl Live {
    /// For a trial with these parameters.
    pub fn new(parameters: &Parameters, colour: bool) -> Self {
        Self {
            paint: Paint(colour),
            story: Story::new(parameters),
            hosts: words::hosts(parameters),
            origin_ns: None,
        }
    }

    /// Learns the prediction: what times count from, and how many probes to expect.
    pub fn predict(&mut self, prediction: &Prediction) {
        self.story.predict(prediction);
    }

    /// Takes an event.
    pub fn feed(&mut self, event: &Event) {
        self.story.feed(event);
    }

    /// The lines that are ready at `now_ns` of the events' clock, without newlines.
    pub fn lines(&mut self, now_ns: u64) -> Vec<String> {
        let items = self.story.items(now_ns);
        items.iter().map(|item| self.line(item)).collect()
    }

    /// The lines that are left at the end of the trial.
    pub fn finish(mut self) -> Vec<String> {
        let items = self.story.clone().finish();
        items.iter().map(|item| self.line(item)).collect()
    }

    fn line(&mut self, item: &Item) -> String {
        match item {
            Item::Happened { at_ns, note, passage } => {
                let origin_ns = self.origin_ns.unwrap_or(*at_ns);
                row::row(seconds_between(origin_ns, *at_ns), note, *passage, self.paint)
            }
            Item::Origin { at_ns, text } => match self.origin_ns.replace(*at_ns) {
                None => row::heads(self.hosts, self.paint),
                Some(_) => row::rule(text, self.paint),
            },
            Item::More(count) => row::more(*count, self.paint),
        }
    }
}

fn seconds_between(from_ns: u64, to_ns: u64) -> f64 {
    (i128::from(to_ns) - i128::from(from_ns)) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use crate::trial::Trial;
    use timeline::What;
    use timeline::event::Phase;

    /// Feeds a trial in steps, as a runner would.
    fn lines(trial: &Trial) -> Vec<String> {
        let mut live = Live::new(&trial.experiment.parameters, false);
        let mut lines = Vec::new();
        for event in trial.timeline.events() {
            if event.what == What::Phase(Phase::Connected) {
                live.predict(trial.prediction.as_ref().unwrap());
            }
            live.feed(event);
            lines.extend(live.lines(event.at_ns));
        }
        lines.extend(live.finish());
        lines
    }

    #[test]
    fn an_idle_client_whose_probes_are_lost() {
        let lines = lines(&samples::keepalive());
        assert!(lines.iter().all(|line| line.chars().count() <= 104), "{lines:#?}");
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_write_that_is_sent_again() {
        insta::assert_snapshot!(lines(&samples::sending()).join("\n"));
    }

    #[test]
    fn a_killed_process_closes_in_four_steps() {
        insta::assert_snapshot!(lines(&samples::crash()).join("\n"));
    }

    #[test]
    fn a_router_asks_and_is_asked_for_itself() {
        insta::assert_snapshot!(lines(&samples::routed()).join("\n"));
    }

    #[test]
    fn the_switch_behind_a_router_is_a_cable() {
        let mut trial = samples::routed();
        let interface = "switch port to server".to_owned();
        let down = What::Link { interface, exists: true, up: false, carrier: false };
        let mut events = trial.timeline.events().to_vec();
        let at_ns = events.last().unwrap().at_ns;
        events.push(timeline::Event::new(at_ns, timeline::Source::Lab, down));
        trial.timeline = timeline::Timeline::new(events);
        let lines = lines(&trial);
        assert!(lines.last().unwrap().contains("link cable to server: down"), "{lines:#?}");
    }

    #[test]
    fn nginx_that_is_left_behind_has_its_own_name_and_its_close_is_marked() {
        let mut trial = samples::crash();
        // Here the client closes, in the aftermath.
        trial.experiment.parameters.client.program = spec::Program::Nginx;
        let lines = lines(&trial);
        let heads: Vec<_> = lines[0].split_whitespace().collect();
        assert_eq!(heads, ["time", "nginx", "wire", "client"]);
        let closes: Vec<_> = lines.iter().filter(|line| line.contains("nginx closes")).collect();
        assert_eq!(closes.len(), 1, "{lines:#?}");
        assert!(closes[0].contains("─ FIN: nginx closes ──"), "{closes:?}");
    }

    #[test]
    fn a_stream_is_cut_short() {
        let lines = lines(&samples::stream());
        let more = lines.iter().filter(|line| line.contains("more like this")).count();
        assert!(more > 0, "{lines:#?}");
        assert!(lines.len() < 40, "{lines:#?}");
    }
}
