//! Text that documents can hold.

/// `text` without the characters that XML forbids (XML 1.0, 2.2, Characters) and without control
/// characters other than line breaks and tabs.
pub(crate) fn legal(text: &str) -> String {
    let is_legal = |character: &char| match character {
        '\n' | '\t' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        other => !other.is_control(),
    };
    text.chars().filter(is_legal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_forbids_is_left_out() {
        assert_eq!(legal("\u{1b}[1mit\u{0}\u{ffff}\r\u{9f}\n\tit"), "[1mit\n\tit");
    }
}
