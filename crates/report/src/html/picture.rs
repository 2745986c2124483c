//! Pictures as files of their own, for a page that is not ours: a trial's sequence diagram first.

use super::diagram::{Drawing, WIDTH, draw_all};
use crate::trial::Trial;
use maud::{Markup, PreEscaped, html};

/// Space around the diagram.
const MARGIN: f64 = 12.0;

/// What the picture is looked at on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// A light page.
    Light,
    /// A dark page.
    Dark,
}

/// A trial's sequence diagram as an SVG file; `None` if nothing happened in the trial.
pub fn picture(trial: &Trial, theme: Theme) -> Option<Vec<u8>> {
    let Drawing { height, label, content } = draw_all(trial)?;
    Some(file((WIDTH, height), &label, &content, theme))
}

/// An SVG file with what was drawn, and its description for those who do not see it.
pub(super) fn file(
    (width, height): (f64, f64),
    label: &str,
    content: &Markup,
    theme: Theme,
) -> Vec<u8> {
    let colours = match theme {
        Theme::Light => include_str!("light.css"),
        Theme::Dark => include_str!("dark.css"),
    };
    let style = format!(
        "svg {{\n{colours}}}\nsvg text {{ font-family: system-ui, 'Segoe UI', Roboto, sans-serif; }}\n{}",
        include_str!("diagram.css")
    );
    let (width, height) = (width + 2.0 * MARGIN, height + 2.0 * MARGIN);
    let svg = html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(width) height=(height)
            viewBox={ (-MARGIN) " " (-MARGIN) " " (width) " " (height) } role="img" aria-label=(label) {
            style { (PreEscaped(style)) }
            rect x=(-MARGIN) y=(-MARGIN) width=(width) height=(height) style="fill:var(--paper)" {}
            (content)
        }
    };
    (svg.into_string() + "\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn it_stands_alone_in_either_colour() {
        let trial = samples::keepalive();
        let [light, dark] = [Theme::Light, Theme::Dark]
            .map(|theme| String::from_utf8(picture(&trial, theme).unwrap()).unwrap());
        assert!(light.contains("keepalive probe") && light.contains("--paper: #fbfaf6"));
        assert!(dark.contains("keepalive probe") && dark.contains("--paper: #16181a"));
        assert!(!light.contains("href") && !light.contains("url("), "nothing from elsewhere");
    }
}
