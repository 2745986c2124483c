//! Colours, used sparingly: a word that must be found, a mark, and what may be passed over.

use crate::narrate::Tone;
use crate::trial::Status;
use anstyle::{AnsiColor, Color, Style};

/// Whether to use them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    pub(crate) fn strong(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    pub(crate) fn quiet(self, text: &str) -> String {
        self.with(Style::new().dimmed(), text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.with(coloured(AnsiColor::Green), text)
    }

    pub(crate) fn warning(self, text: &str) -> String {
        self.with(coloured(AnsiColor::Yellow), text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.with(coloured(AnsiColor::Red), text)
    }

    /// `text` in the colour of a status.
    pub(crate) fn status(self, status: Status, text: &str) -> String {
        let colour = match status {
            Status::Agrees => AnsiColor::Green,
            Status::Unmet | Status::Disagrees | Status::Failed => AnsiColor::Red,
            Status::Inconclusive => AnsiColor::Yellow,
            Status::Skipped => AnsiColor::Blue,
        };
        self.with(coloured(colour).bold(), text)
    }

    /// `text` in the tone of a note.
    pub(crate) fn tone(self, tone: Tone, text: &str) -> String {
        let style = match tone {
            Tone::Ordinary => Style::new(),
            Tone::Quiet | Tone::State => Style::new().dimmed(),
            Tone::Step => coloured(AnsiColor::Cyan),
            Tone::Fault => coloured(AnsiColor::Magenta).bold(),
            Tone::End => coloured(AnsiColor::Red).bold(),
            Tone::Warning => coloured(AnsiColor::Yellow),
        };
        self.with(style, text)
    }

    fn with(self, style: Style, text: &str) -> String {
        if self.0 && !style.is_plain() && !text.is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

const fn coloured(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(colour)))
}
