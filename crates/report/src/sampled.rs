//! Predictions from samples as a table, to be kept.

use crate::json;
use crate::span;
use serde::Serialize;
use spec::Outcome;
use std::collections::BTreeMap;
use std::fmt::Write;
use verdict::samples::Came;

/// What one sample came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The experiment and its settings.
    pub setting: String,
    /// The fault.
    pub fault: String,
    /// What the socket was doing.
    pub doing: &'static str,
    /// When the sample was taken, seconds after the fault.
    pub after_fault_s: f64,
    /// How it ended.
    pub outcome: Outcome,
    /// When, or how long it was watched, seconds after the sample.
    pub ended_s: f64,
    /// The windows, seconds after the sample: outcome, earliest, latest.
    pub windows: Vec<(Outcome, Option<(f64, f64)>)>,
    /// How the prediction came out.
    pub came: Came,
}

/// All samples, and how they were drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sampled {
    /// `halfopen/samples/1`.
    pub schema: &'static str,
    /// `uname -r`.
    pub kernel: String,
    /// Timer interrupts a second.
    pub hz: u32,
    /// The clock of its times.
    pub clock: crate::trial::Clock,
    /// How the samples were drawn.
    pub drawn: &'static str,
    /// The samples.
    pub rows: Vec<Row>,
}

/// How samples are drawn.
pub const DRAWN: &str = "Each trial of the validation looks at the client's socket at random moments \
    too, ever further apart. Of the looks after the fault after which nothing reached the client, its \
    program made no call and no sysctl changed, four were drawn at random from each trial, and the end \
    was predicted from that look, the socket's options and the sysctls alone. Neighbours that are \
    learned are left out: their entries are not in a look at a socket. Nor is the ICMP error that came \
    last: where one had come before the look, the time was compared, and any error taken for the other.";

impl Row {
    /// The width of all windows, seconds.
    fn width(&self) -> Option<f64> {
        let spans = self.windows.iter().filter_map(|(_, span)| *span);
        let hull = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        hull.map(|(earliest, latest)| latest - earliest)
    }
}

/// The table as Markdown: by fault and by what the socket was doing.
pub fn markdown(sampled: &Sampled) -> String {
    let mut text = String::from("# Predictions from single samples\n\n");
    let Sampled { kernel, hz, clock, drawn, rows, .. } = sampled;
    let count = |rows: &[&Row], came: Came| rows.iter().filter(|row| row.came == came).count();
    let all: Vec<&Row> = rows.iter().collect();
    writeln!(
        text,
        "Linux {kernel} · HZ {hz} · {clock} clock\n\n{drawn}\n\n{} samples: {} inside, {} outside, \
         {} unknown.\n",
        all.len(),
        count(&all, Came::Inside),
        count(&all, Came::Outside),
        count(&all, Came::Unknown)
    )
    .expect("a String takes all");
    text +=
        "| fault | the socket | samples | inside | outside | unknown | median width | widest |\n";
    text += "|---|---|---|---|---|---|---|---|\n";
    let mut groups: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        groups.entry((&row.fault, row.doing)).or_default().push(row);
    }
    for ((fault, doing), rows) in groups {
        let mut widths: Vec<f64> = rows.iter().filter_map(|row| row.width()).collect();
        widths.sort_by(f64::total_cmp);
        let shown = |width: Option<&f64>| width.map_or_else(|| "–".into(), |w| span::measured(*w));
        writeln!(
            text,
            "| {fault} | {doing} | {} | {} | {} | {} | {} | {} |",
            rows.len(),
            count(&rows, Came::Inside),
            count(&rows, Came::Outside),
            count(&rows, Came::Unknown),
            shown(widths.get(widths.len() / 2)),
            shown(widths.last())
        )
        .expect("a String takes all");
    }
    let odd: Vec<_> = rows.iter().filter(|row| row.came == Came::Outside).collect();
    if !odd.is_empty() {
        text += "\n## Outside\n\n";
    }
    for row in odd {
        writeln!(
            text,
            "- {}: {} {:.3} s after the fault, then {} {:.3} s later, not {:?}",
            crate::markdown::cell(&row.setting),
            row.doing,
            row.after_fault_s,
            row.outcome,
            row.ended_s,
            row.windows
        )
        .expect("a String takes all");
    }
    text
}

/// The same for programs.
pub fn document(sampled: &Sampled) -> Vec<u8> {
    json::pretty(sampled)
}
