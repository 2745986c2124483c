use super::*;
use crate::samples;

fn files() -> Vec<File> {
    let file = |name: &str, what: &str| File { name: name.into(), what: what.into() };
    vec![
        file("packets.pcapng", "both interfaces"),
        file("timeline.jsonl", "every event"),
        file("prediction.json", "written before the fault"),
        file("verdict.json", "and what it rests on"),
    ]
}

/// An element a line, so that changes can be read.
fn in_lines(page: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(page).replace("><", ">\n<").into_bytes()
}

#[test]
fn a_page_for_a_trial_with_probes() {
    let page = trial_page(&samples::run().machine, &samples::keepalive(), &files());
    insta::assert_binary_snapshot!("keepalive.html", in_lines(&page));
}

#[test]
fn a_page_for_a_trial_with_retransmissions() {
    let page = trial_page(&samples::run().machine, &samples::sending(), &files());
    insta::assert_binary_snapshot!("sending.html", in_lines(&page));
}

#[test]
fn a_page_for_a_trial_that_disagrees() {
    let page = trial_page(&samples::run().machine, &samples::late(), &files());
    insta::assert_binary_snapshot!("late.html", in_lines(&page));
}

#[test]
fn a_page_for_a_killed_process() {
    let page = trial_page(&samples::run().machine, &samples::crash(), &files());
    insta::assert_binary_snapshot!("crash.html", in_lines(&page));
}

#[test]
fn a_page_for_a_trial_with_a_router() {
    let page = trial_page(&samples::run().machine, &samples::routed(), &files());
    insta::assert_binary_snapshot!("routed.html", in_lines(&page));
}

#[test]
fn a_page_for_a_run() {
    let link = |name: &str, number: usize| format!("../{name}-{number}/report.html");
    let page = run_page(&samples::repeated().tally(), link);
    insta::assert_binary_snapshot!("run.html", in_lines(&page));
}

#[test]
fn a_page_for_an_article() {
    let page = article_page(&samples::article(), |run, trial| {
        Some(format!("{}/{}/report.html", run.machine.clock, trial.experiment.name))
    });
    insta::assert_binary_snapshot!("article.html", in_lines(&page));
}

#[test]
fn a_page_needs_nothing_from_elsewhere_and_closes_what_it_opens() {
    let run = samples::run();
    let mut pages: Vec<_> =
        run.trials.iter().map(|trial| trial_page(&run.machine, trial, &[])).collect();
    pages.push(run_page(&run.tally(), |name, _| name.into()));
    pages.push(article_page(&samples::article(), |_, _| None));
    for page in pages {
        let page = String::from_utf8(page).unwrap();
        for banned in ["<script", "http:", "https:", "@import", "url("] {
            assert!(!page.contains(banned), "{banned}");
        }
        for element in
            ["section", "div", "svg", "text", "table", "tr", "td", "dl", "ul", "li", "p", "h2"]
        {
            let opened = page.matches(&format!("<{element} ")).count()
                + page.matches(&format!("<{element}>")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
        }
    }
}

#[test]
fn what_a_file_says_cannot_become_markup() {
    let mut trial = samples::keepalive();
    trial.experiment.question = "<b>is it?</b>".into();
    trial.verdict.reason = "<i>".into();
    trial.experiment.name = "\"><script>".into();
    let page = trial_page(&samples::run().machine, &trial, &[]);
    let page = String::from_utf8(page).unwrap();
    assert!(!page.contains("<b>is it") && !page.contains("<i>"));
    assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"));
}
