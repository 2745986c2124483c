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
    let page = trial_page(&samples::keepalive(), &files());
    insta::assert_binary_snapshot!("keepalive.html", in_lines(&page));
}

#[test]
fn a_page_for_a_trial_with_retransmissions() {
    let page = trial_page(&samples::sending(), &files());
    insta::assert_binary_snapshot!("sending.html", in_lines(&page));
}

#[test]
fn a_page_for_a_trial_that_disagrees() {
    let page = trial_page(&samples::late(), &files());
    insta::assert_binary_snapshot!("late.html", in_lines(&page));
}

#[test]
fn a_page_for_a_killed_process() {
    let page = trial_page(&samples::crash(), &files());
    insta::assert_binary_snapshot!("crash.html", in_lines(&page));
}

#[test]
fn a_page_for_a_trial_with_a_router() {
    let page = trial_page(&samples::routed(), &files());
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

/// Every kind of page.
fn every_page() -> Vec<String> {
    let run = samples::run();
    let mut pages: Vec<_> = run.trials.iter().map(|trial| trial_page(trial, &files())).collect();
    pages.push(run_page(&run.tally(), |name, _| name.into()));
    pages.push(article_page(&samples::article(), |_, _| None));
    pages.into_iter().map(|page| String::from_utf8(page).unwrap()).collect()
}

/// The parts of a page after each `mark`.
fn after<'a>(page: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    page.split(mark).skip(1)
}

/// The value of an attribute, from where it begins.
fn value(text: &str) -> &str {
    text.split('"').next().unwrap_or_default()
}

/// What `just pages` finds with a browser, as far as it can be found without one.
#[test]
fn a_page_is_for_everybody() {
    for page in every_page() {
        let levels = after(&page, "<h").filter_map(|rest| rest.chars().next()?.to_digit(10));
        let levels: Vec<_> = levels.collect();
        assert_eq!(levels.iter().filter(|level| **level == 1).count(), 1, "{levels:?}");
        assert!(levels[0] == 1 && levels.windows(2).all(|two| two[1] <= two[0] + 1), "{levels:?}");
        let ids: Vec<_> = after(&page, " id=\"").map(value).collect();
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[..at].contains(id), "{id} stands twice");
        }
        for target in after(&page, "href=\"#").map(value) {
            assert!(ids.contains(&target), "nothing is called {target}");
        }
        for tag in after(&page, "<div class=\"figures\"").chain(after(&page, "role=\"img\"")) {
            let tag = tag.split('>').next().unwrap_or_default();
            assert!(tag.contains("aria-label=\""), "{tag}");
        }
        for tag in after(&page, "<div class=\"figures\"") {
            assert!(tag.starts_with(" tabindex=\"0\""), "it scrolls, and no key reaches it");
        }
        assert!(!page.contains("<th></th>") && !page.contains("<img"));
    }
}

#[test]
fn a_page_needs_nothing_from_elsewhere_and_closes_what_it_opens() {
    for page in every_page() {
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
    let page = trial_page(&trial, &[]);
    let page = String::from_utf8(page).unwrap();
    assert!(!page.contains("<b>is it") && !page.contains("<i>"));
    assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"));
}

#[test]
fn a_requirement_that_is_not_met_is_told_in_red() {
    let mut trial = samples::keepalive();
    trial.verdict.requirements = vec![verdict::Requirement {
        key: "require.noticed_within".into(),
        wanted: "1s".into(),
        measured_s: Some(8.0),
        found: "noticed 8.000 s after the fault".into(),
        met: false,
    }];
    let page = trial_page(&trial, &[]);
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains("class=\"verdict requirement not met\""), "the style has its colour");
    assert!(STYLE.contains(".requirement b") && !page.contains("class=\"verdict agrees\""));
    assert!(page.contains("<li class=\"fails\">require.noticed_within = 1s: noticed"), "{page}");
}
