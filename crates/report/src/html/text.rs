//! Text inside HTML and SVG.

use crate::legal::legal;

/// A sentence for reading: with typographic apostrophes, without a break between a number and its
/// unit or inside a range, and without control characters.
pub(super) fn prose(text: &str) -> String {
    const UNITS: &[&str] = &["s", "ms", "µs", "min", "h", "d"];
    let mut set = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        let after_digit = set.ends_with(|before: char| before.is_ascii_digit());
        let after_letter = set.ends_with(char::is_alphanumeric);
        let word = rest.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
        match character {
            ' ' if set.ends_with('=') || rest.starts_with('=') => set.push('\u{a0}'),
            ' ' if after_digit && UNITS.contains(&word) => set.push('\u{a0}'),
            '–' if after_digit => set.push_str("\u{2060}–\u{2060}"),
            '\'' if after_letter => set.push('’'),
            other => set.push(other),
        }
    }
    legal(&set)
}

/// `text`, or its beginning with an ellipsis.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let start: String = text.chars().take(most - 1).collect();
    format!("{}…", start.trim_end())
}

/// `text` in lines of at most `most` letters, broken between words where possible.
pub(super) fn lines(text: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always one");
        let letters = line.chars().count() + 1 + word.chars().count();
        if line.is_empty() {
            line.push_str(&cut(word, most));
        } else if letters <= most {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(cut(word, most));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_with_their_units() {
        let set = prose("the server's 5.020–5.160 s, then 3 probes");
        assert_eq!(set, "the server’s 5.020\u{2060}–\u{2060}5.160\u{a0}s, then 3 probes");
    }

    #[test]
    fn long_texts_take_several_lines() {
        assert_eq!(lines("a fresh server host", 10), ["a fresh", "server", "host"]);
        assert_eq!(lines("unbreakable", 6), ["unbre…"]);
        assert_eq!(lines("", 6), [""]);
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(cut("switch port down", 12), "switch port…");
        assert_eq!(cut("down", 12), "down");
    }
}
