//! Output for people while trials run: the announcement, the live timeline of a single trial, a
//! bar with the time left, and the verdicts.

use crate::batch::Trials;
use crate::output::{self, Exit, Format};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use report::{Clock, Live, Tally, Trial, human};
use spec::{Experiment, Part};
use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::path::Path;
use timeline::event::{FaultStep, Phase, Stream};
use timeline::{Event, Source, What};

/// Shows trials as they run. Silent where a program reads the output.
pub(crate) struct Screen {
    colour: bool,
    silent: bool,
    /// The trial's live timeline; `None` when several run and only their ends are shown.
    live: Option<Live>,
    /// Where its client is.
    client: Option<Part>,
    /// Whether events come at the pace of this machine's clock.
    real_time: bool,
    /// Whether a bar can be drawn.
    animated: bool,
    /// The bar, while there is something to wait for.
    bar: Option<ProgressBar>,
    /// When the predicted moment is, once both the fault and the prediction are known.
    waiting: Option<Waiting>,
    latest_s: Option<f64>,
    total: usize,
    /// Whether an experiment has several trials, to be told apart by number.
    repeated: bool,
    ended: usize,
    /// Whether standard output took everything.
    written: Cell<Exit>,
}

struct Waiting {
    from_ns: u64,
    until_ns: u64,
}

impl Screen {
    pub(crate) fn new(format: Format, trials: &Trials) -> Self {
        let silent = format != Format::Human;
        let terminal = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        let colour = output::colour(&std::io::stdout());
        let setup = &trials.setup;
        let total = trials.total();
        let (live, client) = match &setup.experiments[..] {
            [Experiment { parameters, .. }] if total == 1 => {
                let live = (!output::is_quiet()).then(|| Live::new(parameters, colour));
                (live, Some(parameters.part("client")))
            }
            _ => (None, None),
        };
        Self {
            colour,
            silent,
            live,
            client,
            real_time: setup.clock == Clock::Real,
            // Virtual time has no moment to wait for.
            animated: !silent && terminal && setup.clock == Clock::Real,
            bar: None,
            waiting: None,
            latest_s: None,
            total,
            repeated: (0..total).any(|position| trials.place(position).number > 1),
            ended: 0,
            written: Cell::new(Exit::AGREES),
        }
    }

    /// A line to the operator, beside the results.
    pub(crate) fn say(&self, text: &str) {
        self.above_the_bar(|| eprintln!("{text}"));
    }

    pub(crate) fn started(&mut self, experiment: &Experiment) {
        if self.live.is_some() {
            self.show(&human::announce(experiment, self.colour));
        }
    }

    pub(crate) fn predicted(&mut self, experiment: &Experiment, prediction: &model::Prediction) {
        if let Some(live) = self.live.as_mut().filter(|_| !self.real_time) {
            // All that comes before it is here.
            let lines = live.lines(u64::MAX);
            self.show_lines(&lines);
        }
        if let Some(live) = &mut self.live {
            live.predict(prediction);
            let text = human::predicted(&experiment.parameters, prediction, self.colour);
            self.latest_s = prediction
                .windows
                .iter()
                .filter_map(|window| window.span)
                .map(|(_, latest)| latest.as_secs_f64())
                .reduce(f64::max);
            self.show(&text);
        }
    }

    pub(crate) fn event(&mut self, event: &Event) {
        if let Some(live) = &mut self.live {
            // What the client's command writes passes through as it is.
            let program = self.client.map(Source::program);
            if !(Some(event.source) == program && matches!(event.what, What::Output { .. })) {
                live.feed(event);
            }
            match (&event.what, self.latest_s) {
                (What::Fault(FaultStep::Begin), Some(latest_s)) => {
                    let until_ns = event.at_ns + (latest_s * 1e9) as u64;
                    self.waiting = Some(Waiting { from_ns: event.at_ns, until_ns });
                }
                (What::Phase(Phase::Aftermath), _) => self.waiting = None,
                _ => {}
            }
        }
    }

    /// What the client's command has written, where its trial is the only one.
    pub(crate) fn pass_on(&self, side: Part, stream: Stream, bytes: &[u8]) {
        match stream {
            _ if self.silent || self.client != Some(side) => {}
            Stream::Output => drop(self.above_the_bar(|| output::print(bytes))),
            // Standard error may be closed; then the error is lost.
            Stream::Error => drop(self.above_the_bar(|| std::io::stderr().write_all(bytes))),
        }
    }

    /// Ten times a second: the lines that are ready, and the bar.
    pub(crate) fn tick(&mut self, now_ns: u64) {
        if let Some(live) = &mut self.live {
            // Where time is virtual, this process does not know the time: only at the end can no
            // earlier event follow.
            if self.real_time {
                let lines = live.lines(now_ns);
                self.show_lines(&lines);
            }
            match &self.waiting {
                Some(Waiting { from_ns, until_ns }) => {
                    let (whole, gone) = (until_ns - from_ns, now_ns.saturating_sub(*from_ns));
                    let left = whole.saturating_sub(gone) as f64 / 1e9;
                    let message = format!("{left:.1} s to the end of the predicted window");
                    self.draw(gone.min(whole) / 1_000_000, whole / 1_000_000, message);
                }
                None => self.clear(),
            }
        } else {
            let message = format!("{} of {} trials", self.ended, self.total);
            self.draw(self.ended as u64, self.total as u64, message);
        }
    }

    fn draw(&mut self, done: u64, whole: u64, message: String) {
        if self.animated {
            let bar = self.bar.get_or_insert_with(|| {
                let style = ProgressStyle::with_template("{bar:40} {msg}")
                    .expect("the template is well formed")
                    .progress_chars("━╸─");
                ProgressBar::with_draw_target(Some(whole), ProgressDrawTarget::stderr())
                    .with_style(style)
            });
            bar.set_length(whole);
            bar.set_position(done);
            bar.set_message(message);
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    pub(crate) fn ended(&mut self, trial: &Trial) {
        self.ended += 1;
        if let Some(live) = self.live.take() {
            self.show_lines(&live.finish());
            self.clear();
            self.show("\n");
            self.show(&human::verdict(trial, self.colour));
        } else {
            let verdict = human::verdict(trial, self.colour);
            let line = verdict.lines().next().unwrap_or_default();
            let name = &trial.experiment.name;
            let number =
                if self.repeated { format!(" #{}", trial.identity.number) } else { String::new() };
            let name = format!("{name}{number}");
            self.show(&format!("{name:<38} {line}\n"));
        }
    }

    /// Where the reports about the whole run lie.
    pub(crate) fn say_where(&self, directory: &Path) {
        if output::is_quiet() {
            return;
        }
        self.show(&format!("reports: {}\n", directory.join("report.html").display()));
    }

    /// Why no trial can be run.
    pub(crate) fn skipped(&mut self, why: &str) {
        self.ended = self.total;
        self.show(&format!("skipped  {why}\n"));
    }

    /// What all trials came to, if there were several.
    pub(crate) fn conclude(&mut self, tally: &Tally, total: usize) -> Exit {
        self.clear();
        if total > 1 && !output::is_quiet() {
            self.show(&human::summary(tally, self.colour));
        }
        self.written.get()
    }

    fn show_lines(&self, lines: &[String]) {
        for line in lines {
            self.show(&format!("{line}\n"));
        }
    }

    fn show(&self, text: &str) {
        // What cannot be written is complained about once.
        if !self.silent && self.written.get() == Exit::AGREES {
            self.written.set(self.above_the_bar(|| output::print(text.as_bytes())));
        }
    }

    fn above_the_bar<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}
