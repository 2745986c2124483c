//! What goes to the terminal, and the exit codes.

use clap::ValueEnum;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;

/// An exit code of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit(pub(crate) u8);

impl Exit {
    pub(crate) const AGREES: Self = Self(0);
    pub(crate) const DISAGREES: Self = Self(1);
    pub(crate) const USAGE: Self = Self(2);
    pub(crate) const INCONCLUSIVE: Self = Self(3);
    pub(crate) const SKIPPED: Self = Self(4);
    pub(crate) const INTERNAL: Self = Self(5);
    pub(crate) const UNMET: Self = Self(6);

    /// The graver of two.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        let gravity = [
            Self::USAGE,
            Self::INTERNAL,
            Self::DISAGREES,
            Self::UNMET,
            Self::INCONCLUSIVE,
            Self::SKIPPED,
        ];
        gravity.into_iter().find(|grave| self == *grave || other == *grave).unwrap_or(Self::AGREES)
    }

    /// That of a verdict.
    pub(crate) fn of(word: verdict::Word) -> Self {
        match word {
            verdict::Word::Agrees => Self::AGREES,
            verdict::Word::Disagrees => Self::DISAGREES,
            verdict::Word::Inconclusive => Self::INCONCLUSIVE,
            verdict::Word::Skipped => Self::SKIPPED,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// When colours are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What the command line says of output for people.
static WANTED: OnceLock<(Colour, bool)> = OnceLock::new();

/// Sets, once, what the command line says.
pub(crate) fn set(colour: Colour, quiet: bool) {
    WANTED.get_or_init(|| (colour, quiet));
}

/// Whether a person wants verdicts alone.
pub(crate) fn is_quiet() -> bool {
    WANTED.get().is_some_and(|(_, quiet)| *quiet)
}

/// Whether a stream takes colours.
pub(crate) fn colour(stream: &impl IsTerminal) -> bool {
    match WANTED.get() {
        Some((Colour::Always, _)) => return true,
        Some((Colour::Never, _)) => return false,
        Some((Colour::Auto, _)) | None => {}
    }
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let unable = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && !unwanted && !unable
}

/// What standard output gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text for people.
    Human,
    /// One JSON document.
    Json,
    /// A JSON object a line, each as soon as it is there.
    Jsonl,
}

/// Writes to standard output. A reader that has gone away has seen enough.
pub(crate) fn print(bytes: &[u8]) -> Exit {
    print_by(|output| output.write_all(bytes))
}

/// The same piece by piece.
pub(crate) fn print_by(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Exit {
    let mut stdout = BufWriter::new(std::io::stdout().lock());
    let written = write(&mut stdout).and_then(|()| stdout.flush());
    // What could not be written is not tried again.
    let _ = stdout.into_parts();
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            fail(Exit::INTERNAL, &anyhow::Error::from(error).context("writing to standard output"))
        }
        _ => Exit::AGREES,
    }
}

/// Tells a person what went wrong.
pub(crate) fn fail(exit: Exit, error: &anyhow::Error) -> Exit {
    let text = sentence(error);
    // An error in an experiment file comes with its own heading and the lines of the file.
    let heading =
        if text.starts_with("error") || text.starts_with('\x1b') { "" } else { "error: " };
    // In one piece: other processes write there too. Standard error may be closed; then the error
    // is lost.
    let _ = std::io::stderr().write_all(format!("{heading}{text}\n").as_bytes());
    exit
}

/// An error with its causes. A cause that the error before it ends with is not said again.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        before if before.ends_with(&cause) => text,
        before => format!("{before}: {cause}"),
    })
}

/// The end of a process that people do not call by hand.
pub(crate) fn inner(result: anyhow::Result<i32>) -> Exit {
    match result {
        Ok(code) => Exit(u8::try_from(code).unwrap_or(Exit::INTERNAL.0)),
        Err(error) => fail(Exit::INTERNAL, &error),
    }
}
