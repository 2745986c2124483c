//! The table of programs and what mends them.

use super::page;
use super::text::prose;
use crate::mends::{HEADS, rows};
use crate::span;
use crate::summary::Groups;
use crate::tally::Tally;
use maud::{Markup, html};

/// The table as a page of its own, to be kept; `None`: no experiment says what mends it.
pub fn mends_page(tally: &Tally) -> Option<Vec<u8>> {
    let table = section(&tally.groups)?;
    let body = html! {
        p.kicker {
            b { "halfopen" }
            " · " (tally.kernels()) " · " (span::measured(tally.wall_s))
        }
        h1 { "How long programs hang, and what mends them" }
        (table)
    };
    Some(page("Programs and what mends them", &tally.machines(), &body))
}

/// The table as a part of a page.
pub(super) fn section(groups: &Groups) -> Option<Markup> {
    let rows = rows(groups);
    let table = || {
        html! {
            .figures tabindex="0" role="group" aria-label="Programs" {
                table.stacked {
                    thead { tr { @for text in HEADS { th { (text) } } } }
                    tbody {
                        @for row in &rows {
                            tr {
                                @for (at, (head, text)) in HEADS.iter().zip(row.cells()).enumerate() {
                                    td data-head=[(at > 0).then_some(head)] {
                                        @if at == 0 { b { (text) } } @else { (prose(&text)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    (!rows.is_empty()).then(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use spec::Mend;

    /// A phone has no room for the heads: each cell below the program's name says what it is.
    #[test]
    fn a_row_can_be_read_without_the_heads() {
        let mut trial = samples::keepalive();
        trial.experiment.mend = Some(Mend::Nothing("it has a timer of its own".into()));
        let table = section(&Groups::of(&[trial])).unwrap().into_string();
        for head in &HEADS[1..] {
            assert!(table.contains(&format!("<td data-head=\"{head}\">")), "{head}: {table}");
        }
        assert!(table.contains("<tr><td><b>"), "{table}");
    }
}
