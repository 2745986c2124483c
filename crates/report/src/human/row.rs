//! One line of the timeline: time, client, wire, server.

use crate::human::paint::Paint;
use crate::narrate::{Note, Place, Tone};
use crate::passage::Passage;

const TIME: usize = 12;
const CLIENT: usize = 29;
const WIRE: usize = 34;
/// The server's column has no right edge; with it a line has about 100.
const SERVER: usize = 21;

/// The heads of the columns.
pub(super) fn heads([watched, other]: [&str; 2], paint: Paint) -> String {
    let wire = centred("wire", WIRE, ' ');
    let text = format!("{:>TIME$}  {watched:<CLIENT$} {wire}  {other}", "time");
    paint.quiet(text.trim_end())
}

/// One event.
pub(super) fn row(seconds: f64, note: &Note, passage: Passage, paint: Paint) -> String {
    let time = paint.quiet(&format!("{:>TIME$}", clock(seconds)));
    let text = &note.text;
    let painted = |text: &str| paint.tone(note.tone, text);
    let gap = " ".repeat(CLIENT);
    match note.place {
        Place::Client => format!("{time}  {}", painted(&cut(text, CLIENT + WIRE + SERVER))),
        Place::Server => {
            let gap = " ".repeat(CLIENT + WIRE + 3);
            format!("{time}  {gap}{}", painted(text))
        }
        Place::ToServer => {
            let (arrow, lost) = to_server(text, passage);
            format!("{time}  {gap} {}{}", painted(&arrow), paint.tone(Tone::End, lost))
        }
        Place::ToClient => {
            let (lost, arrow) = to_client(text, passage);
            format!("{time}  {gap} {}{}", paint.tone(Tone::End, &lost), painted(&arrow))
        }
        Place::Trial => format!("{time}  {}", painted(text)),
    }
}

/// A line across all columns.
pub(super) fn rule(text: &str, paint: Paint) -> String {
    let line = centred(&format!(" {text} "), CLIENT + WIRE + SERVER + 3, '─');
    paint.quiet(&format!("{:>TIME$}  {line}", ""))
}

/// Ordinary events that were left out.
pub(super) fn more(count: u32, paint: Paint) -> String {
    paint.quiet(&format!("{:>TIME$}  ⋯ {count} more like this", ""))
}

fn to_server(text: &str, passage: Passage) -> (String, &'static str) {
    let text = cut(text, WIRE - 6);
    match passage {
        Passage::Lost => (format!("─ {text} ──"), "✗"),
        Passage::Appeared => (format!("├ {}▶", filled(&text, WIRE - 3)), ""),
        Passage::Taken => (format!("─ {}▶┤", filled(&text, WIRE - 4)), ""),
        Passage::Unknown => (format!("─ {}?", filled(&text, WIRE - 3)), ""),
        _ => (format!("─ {}▶", filled(&text, WIRE - 3)), ""),
    }
}

fn to_client(text: &str, passage: Passage) -> (String, String) {
    let text = cut(text, WIRE - 6);
    let line = |width: usize| "─".repeat(width.saturating_sub(text.chars().count() + 2));
    match passage {
        Passage::Lost => {
            let width = text.chars().count() + 5;
            (format!("{}✗", " ".repeat(WIRE.saturating_sub(width + 1))), format!("── {text} ─"))
        }
        Passage::Appeared => (String::new(), format!("◀{} {text} ┤", line(WIRE - 2))),
        Passage::Taken => (String::new(), format!("├◀{} {text} ─", line(WIRE - 3))),
        Passage::Unknown => (String::new(), format!("?{} {text} ─", line(WIRE - 2))),
        _ => (String::new(), format!("◀{} {text} ─", line(WIRE - 2))),
    }
}

fn filled(text: &str, width: usize) -> String {
    let rest = width.saturating_sub(text.chars().count() + 1);
    format!("{text} {}", "─".repeat(rest))
}

fn centred(text: &str, width: usize, fill: char) -> String {
    let rest = width.saturating_sub(text.chars().count());
    let side = |count: usize| fill.to_string().repeat(count);
    format!("{}{text}{}", side(rest / 2), side(rest - rest / 2))
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width - 1).collect();
    format!("{kept}…")
}

/// Seconds with microseconds, or hours and minutes where they are many.
fn clock(seconds: f64) -> String {
    let sign = if seconds < 0.0 { "−" } else { "" };
    let s = seconds.abs();
    if s < 3600.0 {
        return format!("{sign}{s:.6}");
    }
    let whole = s as u64;
    let rest = s - (whole - whole % 60) as f64;
    format!("{sign}{}:{:02}:{rest:06.3}", whole / 3600, whole / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fit_their_column() {
        for (seconds, expected) in [
            (0.0, "0.000000"),
            (-0.012, "−0.012000"),
            (939.104_2, "939.104200"),
            (7875.25, "2:11:15.250"),
        ] {
            assert_eq!(clock(seconds), expected);
            assert!(expected.chars().count() <= TIME);
        }
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(cut("neighbour discovery", 10), "neighbour…");
    }
}
