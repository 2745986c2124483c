//! README and the guide show what this program prints, their links lead somewhere, and what is made from
//! the program or copied from results is not stale.
//!
//! A ```console block is run, each `$ command` in a directory of the block's own, and what it prints is held
//! against what is shown. A comment before the block says how, `<!-- test: WORDS -->`, words separated by commas:
//!
//! - `exact`: what is shown is what is printed; without it numbers and their units may differ.
//! - `timeline`: lines that begin with a time are left out, as the order of two instruments may differ.
//! - `exit N`: the exit code of the last command, which is 0 otherwise.
//! - `virtual`: it needs the virtual kernel, and is run by the test that is ignored.
//! - `needs PROGRAM`: it is left out where that is not installed.
//! - `after COMMAND`: what is run before it.
//! - `machine`: what is printed depends on the machine: it is only run, whatever its exit code.
//! - `no, WHY`: it is not run.
//!
//! A line `[…]` stands for any lines.

use crate::common::{has_no, is_real_root, show};
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// README and every page of the guide, from the root.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    let mut directories = vec!["docs/src".to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root().join(&directory)).unwrap() {
            let name = format!("{directory}/{}", entry.unwrap().file_name().to_str().unwrap());
            if root().join(&name).is_dir() {
                directories.push(name);
            } else if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
                pages.push(name);
            }
        }
    }
    pages.sort();
    pages
}

/// A block of commands with what they print.
struct Block {
    page: String,
    words: Vec<String>,
    commands: Vec<(String, Vec<String>)>,
}

impl Block {
    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }

    fn after(&self, word: &str) -> Option<&str> {
        self.words.iter().find_map(|known| known.strip_prefix(word)?.strip_prefix(' '))
    }
}

fn blocks(page: &str) -> Vec<Block> {
    let text = read(page);
    let lines: Vec<_> = text.lines().collect();
    let mut blocks = Vec::new();
    for (index, _) in lines.iter().enumerate().filter(|(_, line)| **line == "```console") {
        let comment = index
            .checked_sub(1)
            .and_then(|before| lines[before].strip_prefix("<!-- test: ")?.strip_suffix(" -->"));
        let words = comment.unwrap_or_default().split(", ").map(str::to_owned).collect();
        let mut commands: Vec<(String, Vec<String>)> = Vec::new();
        for line in lines[index + 1..].iter().take_while(|line| **line != "```") {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command.into(), Vec::new())),
                (None, Some((command, _))) if command.ends_with('\\') => {
                    *command = command.trim_end_matches('\\').to_owned() + line.trim_start();
                }
                (None, Some((_, shown))) => shown.push((*line).to_owned()),
                (None, None) => panic!("{page}: a block begins with a command, not `{line}`"),
            }
        }
        assert!(!commands.is_empty(), "{page}: a block without a command");
        blocks.push(Block { page: page.into(), words, commands });
    }
    blocks
}

/// Runs the commands of a block, and says what is not as shown.
fn check(block: &Block) -> Result<(), String> {
    if block.has("no") || block.after("needs").is_some_and(has_no) {
        return Ok(());
    }
    let directory = tempfile::tempdir().unwrap();
    let before = block.after("after").map(|command| (command.to_owned(), Vec::new()));
    let commands: Vec<_> = before.iter().chain(&block.commands).collect();
    for (index, (command, shown)) in commands.iter().enumerate() {
        let output = shell(directory.path(), command);
        let is_last = index + 1 == commands.len();
        let code = block.after("exit").filter(|_| is_last).map_or(0, |code| code.parse().unwrap());
        let is_right = output.status.code() == Some(code) || block.has("machine");
        let printed = String::from_utf8_lossy(&output.stdout);
        let compared = match is_right {
            true if shown.is_empty() || block.has("machine") => Ok(()),
            true => compare(&lines(block, printed.lines()), shown, block),
            false => Err(format!("the exit code is not {code}")),
        };
        compared.map_err(|why| format!("{}: $ {command}\n{}\n{why}", block.page, show(&output)))?;
    }
    Ok(())
}

/// Whether lines that were printed are those that are shown.
fn compare(printed: &[String], shown: &[String], block: &Block) -> Result<(), String> {
    let parts: Vec<_> = shown.split(|line| line == "[…]").collect();
    let mut at = 0;
    for (number, part) in parts.iter().enumerate() {
        let part = lines(block, part.iter().map(String::as_str));
        let is_here = |from: &usize| printed[*from..].starts_with(&part);
        let mut places = if number == 0 { 0..=0 } else { at..=printed.len() };
        let found = places.find(is_here);
        at = found.ok_or_else(|| format!("not printed: {part:#?}\nbut {:#?}", &printed[at..]))?
            + part.len();
    }
    let is_open = parts.last().is_some_and(|part| part.is_empty());
    if is_open || at == printed.len() {
        Ok(())
    } else {
        Err(format!("more: {:#?}", &printed[at..]))
    }
}

/// A shell that finds the program under test first.
fn shell(directory: &Path, command: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_halfopen")).parent().unwrap();
    let paths =
        format!("{}:{}:/usr/sbin", program.display(), std::env::var("PATH").unwrap_or_default());
    let shell = Command::new("/bin/sh")
        .args(["-c", command])
        .current_dir(directory)
        .env("PATH", paths)
        .env_remove("HALFOPEN_LOG")
        .output();
    shell.expect("there is a shell")
}

/// What of the lines is compared: without blank ones, and each with single blanks.
fn lines<'a>(block: &Block, lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_exact = block.has("exact");
    let number = Regex::new(r"\d+(\.\d+)?( (ns|µs|ms|s|min|h|d)\b)?").unwrap();
    let rule = Regex::new("[─═]{3,}").unwrap();
    let is_said = |line: &&str| {
        let label = line.split_whitespace().next().unwrap_or_default();
        let is_event = block.has("timeline") && label.replace('−', "-").parse::<f64>().is_ok();
        let is_place = label == "evidence";
        !line.trim().is_empty() && !is_place && (!is_event || line.contains("──"))
    };
    let plain = |line: &str| {
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        if is_exact {
            return words;
        }
        let drawn = words.replace("─ ", " ").replace(" ─", " ");
        let drawn = rule.replace_all(&drawn, "─");
        let words = drawn.split_whitespace().collect::<Vec<_>>().join(" ");
        let words = number.replace_all(&words, "#");
        // Without tracepoints a program may see it before the socket is looked at.
        if is_real_root() {
            words.into_owned()
        } else {
            words.replace("; the program saw it # later", "")
        }
    };
    lines.filter(is_said).map(plain).collect()
}

fn check_all(is_chosen: impl Fn(&Block) -> bool) {
    let all: Vec<_> = pages().iter().flat_map(|page| blocks(page)).collect();
    let chosen: Vec<_> = all.iter().filter(|block| is_chosen(block)).collect();
    assert!(chosen.iter().any(|block| !block.has("no")), "there is no command to run");
    let wrong: Vec<_> = chosen.into_iter().filter_map(|block| check(block).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_command_prints_what_is_shown() {
    check_all(|block| !block.has("virtual"));
}

#[test]
#[ignore = "needs the virtual kernel: just test-virtual"]
fn every_command_in_virtual_time_prints_what_is_shown() {
    check_all(|block| block.has("virtual"));
}

/// The file before `#` of every link of a page that leads to a file of the repository.
fn links(page: &str) -> Vec<String> {
    let text = read(page);
    let link = Regex::new(r#"\]\(<?([^)>]+)>?\)|(?:src|srcset|href)="([^"]+)""#).unwrap();
    let found = link.captures_iter(&text).map(|found| {
        let target = found.get(1).or(found.get(2)).expect("one of both").as_str();
        target.split('#').next().unwrap_or_default().to_owned()
    });
    found.filter(|target| !target.is_empty() && !target.contains("://")).collect()
}

#[test]
fn every_link_leads_to_a_file_and_every_page_is_in_the_contents() {
    let mut linked = BTreeSet::new();
    for page in pages() {
        for target in links(&page) {
            let path = root().join(Path::new(&page).parent().unwrap()).join(&target);
            assert!(path.exists(), "{page}: {target} is not there");
            if page == "docs/src/SUMMARY.md" {
                linked.insert(path.canonicalize().unwrap());
            }
        }
    }
    for page in pages() {
        let path = root().join(&page);
        let is_inside = page.starts_with("docs/src/") && page != "docs/src/SUMMARY.md";
        assert!(!is_inside || linked.contains(&path), "{page} is not in SUMMARY.md");
    }
}

/// Every picture says what it shows, in the light and in the dark, and headings are in order.
#[test]
fn pages_are_for_everybody() {
    let image = Regex::new(r#"<img src="([^"]+)-light\.svg" alt="([^"]+)""#).unwrap();
    let mut pictures = 0;
    for page in pages() {
        let text = read(&page);
        assert!(!text.contains("![]("), "{page}: a picture that says nothing");
        assert_eq!(text.matches("<img").count(), image.captures_iter(&text).count(), "{page}");
        for found in image.captures_iter(&text) {
            let dark = format!("srcset=\"{}-dark.svg\"", &found[1]);
            assert!(text.contains(&dark), "{page}: {} has no dark picture", &found[1]);
            assert!(found[2].len() > 40, "{page}: {}: say more of what it shows", &found[1]);
            pictures += 1;
        }
        let prose = text.split("```").step_by(2).collect::<Vec<_>>().join("");
        let headings = prose.lines().filter(|line| line.starts_with('#'));
        let levels: Vec<_> =
            headings.map(|line| line.chars().take_while(|c| *c == '#').count()).collect();
        let contents = page.ends_with("SUMMARY.md");
        assert!(
            contents || levels.iter().filter(|level| **level == 1).count() == 1,
            "{page}: {levels:?}"
        );
        assert!(levels.windows(2).all(|two| two[1] <= two[0] + 1), "{page}: {levels:?}");
    }
    assert!(pictures > 8, "{pictures}");
}

#[test]
fn the_reference_and_its_pictures_are_what_the_program_says() {
    let directory = tempfile::tempdir().unwrap();
    let command = format!("halfopen reference {}", directory.path().display());
    let output = shell(directory.path(), &command);
    assert!(output.status.success(), "{}", show(&output));
    let mut made = 0;
    for folder in ["reference", "pictures"] {
        for entry in fs::read_dir(directory.path().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let now = fs::read_to_string(directory.path().join(folder).join(&name)).unwrap();
            let kept = read(&format!("docs/src/{folder}/{name}"));
            assert!(now == kept, "docs/src/{folder}/{name} is stale: just reference");
            made += 1;
        }
    }
    assert!(made > 15, "{made} files");
}

/// What a picture says, text for text, sorted, without its times: another release of the kernel has other random
/// numbers, and the fault may come a tick earlier. Which of two instruments speaks first of an instant is up to
/// the machine too.
fn said(picture: &str) -> String {
    let time = Regex::new(r"\d+ (µs|ms)|\d+\.\d+( s)?").unwrap();
    let texts = Regex::new("<(?:text|title)[^>]*>([^<]*)<").unwrap();
    let mut texts: Vec<_> = texts
        .captures_iter(picture)
        .map(|found| time.replace_all(&found[1], "#").into_owned())
        .collect();
    texts.sort();
    texts.join("\n")
}

/// The trial in README's picture: virtual time gives the same events wherever it runs.
#[test]
#[ignore = "needs the virtual kernel: just test-virtual"]
fn the_picture_of_a_trial_is_what_virtual_time_shows() {
    let directory = tempfile::tempdir().unwrap();
    let name = "host-crash-idle-keepalive";
    let run = shell(directory.path(), &format!("halfopen run {name} --clock virtual --out ."));
    assert!(run.status.success(), "{}", show(&run));
    for (form, page) in [("svg", "light"), ("svg-dark", "dark")] {
        let export = format!("halfopen export {form} {name}");
        let made = String::from_utf8(shell(directory.path(), &export).stdout).unwrap();
        let kept = read(&format!("docs/src/pictures/idle-keepalive-{page}.svg"));
        let (made, kept) = (said(&made), said(&kept));
        assert!(kept.contains("ETIMEDOUT"), "{kept}");
        assert!(
            made == kept,
            "the {page} picture is stale: `{export}` says now\n{made}\nand not\n{kept}"
        );
    }
}

/// README is read on a phone; what is longer belongs into the guide.
#[test]
fn readme_is_short() {
    let characters = read("README.md").chars().count();
    assert!(characters < 14_000, "README.md has {characters} characters: move some to docs/src");
}

/// The rows of a page's tables whose first cell `is_chosen`.
fn rows(page: &str, is_chosen: impl Fn(&str) -> bool) -> Vec<Vec<String>> {
    let text = read(page);
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    let rows = text.lines().filter(|line| line.starts_with("| ")).map(cells);
    rows.filter(|row| is_chosen(&row[0])).collect()
}

/// Findings, sentences and figures are those of the reference results.
#[test]
fn findings_are_those_of_the_results() {
    let is_claim = |id: &str| {
        let mut letters = id.chars();
        letters.next().is_some_and(|first| ('A'..='G').contains(&first))
            && letters.next().is_some_and(|second| second.is_ascii_digit() || second == '-')
    };
    let evidence = rows("results/article/article.md", is_claim);
    for (page, least) in [("README.md", 21), ("docs/src/findings.md", 27)] {
        let shown = rows(page, is_claim);
        assert!(shown.len() >= least, "{page}: {} findings", shown.len());
        for row in shown {
            let found = evidence.iter().find(|found| found[0] == row[0]);
            let found = found.unwrap_or_else(|| panic!("{page}: {} has no evidence", row[0]));
            assert!(found[1].starts_with(row[1].split(" (").next().unwrap()), "{page}: {row:?}");
            assert_eq!(found[2].trim_matches('*'), row[2].trim_matches('*'), "{page}: {}", row[0]);
            assert!(row.get(3).is_none_or(|what| *what == found[3]), "{page}: {row:?}");
        }
    }
}

/// What `just programs` and `just proxies` keep of programs: on which clock each ran last.
const KEPT: [&str; 2] =
    ["results/programs/6.12.117-halfopen-virtual", "results/proxies/6.12.117-halfopen-virtual"];

/// And no other rows: a page that has the table of verdicts too is as long again.
#[test]
fn the_tables_of_programs_are_those_of_the_results() {
    let mut kept = Vec::new();
    for directory in KEPT {
        let run = read(&format!("{directory}/run.md"));
        let before = kept.len();
        let table = run.lines().skip_while(|line| !line.starts_with("| program |"));
        kept.extend(table.map(str::to_owned));
        assert!(kept.len() > before + 5, "{kept:#?}");
    }
    let page = read("docs/src/programs.md");
    let shown: Vec<_> = page.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(shown, kept, "programs.md is stale");
    let count = rows("docs/src/programs.md", |_| true).len() - KEPT.len();
    let proxies = files_of("experiments/proxies").len();
    let programs = files_of("experiments/programs").len();
    assert_eq!(count, programs + proxies);
    assert!(
        page.contains(&format!("`experiments/programs/` has {programs} programs")),
        "{programs}"
    );
}

/// The names of the experiments in a directory.
fn files_of(directory: &str) -> BTreeSet<String> {
    let names = fs::read_dir(root().join(directory)).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(".toml").map(str::to_owned)).collect()
}

/// Each experiment of programs has a row in the results, on both clocks, and README's rows are of these.
#[test]
fn every_program_has_its_row_and_readme_the_best_known() {
    for (experiments, results) in
        [("experiments/programs", "results/programs"), ("experiments/proxies", "results/proxies")]
    {
        let files = files_of(experiments);
        let mut clocks = BTreeSet::new();
        for entry in fs::read_dir(root().join(results)).unwrap() {
            let path = entry.unwrap().path().join("mends.json");
            let kept: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let rows = kept["mends"].as_array().unwrap().iter();
            let rows: BTreeSet<_> =
                rows.map(|row| row["experiment"].as_str().unwrap().to_owned()).collect();
            assert_eq!(rows, files, "{} is stale", path.display());
            clocks.insert(kept["clock"].as_str().unwrap().to_owned());
        }
        assert_eq!(clocks.len(), 2, "{results}: {clocks:?}");
    }
    let all = rows(&format!("{}/run.md", KEPT[0]), |_| true);
    let programs = rows("README.md", |name| all.iter().any(|kept| kept[0] == name));
    // The head, and ten.
    assert_eq!(programs.len(), 11, "{programs:#?}");
    for row in programs {
        // The last table is that of mends.
        let kept = all.iter().rfind(|kept| kept[0] == row[0]).unwrap();
        assert_eq!(
            [&kept[1], &kept[6], &kept[7]],
            [&row[1], &row[2], &row[3]],
            "README: {}",
            row[0]
        );
    }
}

/// How many ecosystems `--for` knows is said as it is.
#[test]
fn the_ecosystems_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let command = "halfopen advise --detect 10s --no-prove --for all --format json";
    let output = shell(directory.path(), command);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let count = document["snippets"].as_object().unwrap().len();
    for page in ["README.md", "docs/src/howto/settings.md"] {
        assert!(read(page).contains(&format!(" {count} ecosystems")), "{page}: {count} ecosystems");
    }
}

/// What README and the guide count is what the kept tables count.
#[test]
fn the_figures_of_the_validation_are_those_of_the_results() {
    let page = read("docs/src/validation.md");
    let table = Regex::new(r"\]\(\.\./\.\./(results/[^)]+validation[^)]*\.md)\)").unwrap();
    let tables: Vec<_> = table.captures_iter(&page).map(|found| read(&found[1])).collect();
    assert!(tables.len() > 5, "{}", tables.len());
    let plain = page.split_whitespace().collect::<Vec<_>>().join(" ").replace(',', "");
    let count = |table: &str, pattern: &str| {
        let found = Regex::new(pattern).unwrap().captures(table);
        found.unwrap_or_else(|| panic!("no {pattern}: {table:.500}"))[1].to_owned()
    };
    let skipped = Regex::new(r"(\d+) skipped").unwrap();
    for table in &tables {
        let [settings, trials, agree] = ["(\\d+) settings", "(\\d+) trials", "(\\d+) agree"]
            .map(|pattern| count(table, pattern));
        assert!(plain.contains(&format!("{settings} settings")), "{settings} settings");
        assert!(read("README.md").contains(&format!("{settings} settings")), "README: {settings}");
        let skipped = skipped.captures(table).map_or(0, |found| found[1].parse().unwrap());
        let compared = trials.parse::<usize>().unwrap() - skipped;
        assert!(plain.contains(&format!("{agree} of {compared}")), "{agree} of {compared}");
        assert!(table.contains(" 0 of them grossly"), "{table:.500}");
        assert!(!table.contains("disagree"), "{table:.500}");
        let differ = count(table, r": (\d+) differ");
        let is_said = Regex::new(&format!(r"\b{differ}\b.* differ")).unwrap();
        assert!(is_said.is_match(&plain), "validation.md does not say that {differ} differ");
    }
    let real = &tables[0];
    for pattern in
        [r"(\d+) timers that the kernel armed", r"and (\d+) that fired", r"(\d+) were not compared"]
    {
        let number = count(real, pattern);
        assert!(plain.contains(&number), "validation.md does not say {number}");
    }
}

/// Every variable that the program reads or sets has its row.
#[test]
fn every_variable_of_the_environment_is_told() {
    let page = read("docs/src/reference/environment.md");
    let name = Regex::new("HALFOPEN_[A-Z_]+").unwrap();
    let mut directories = vec![root().join("crates"), root().join("scripts")];
    let mut known = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") {
                directories.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                for found in name.find_iter(&text) {
                    let variable = found.as_str();
                    assert!(page.contains(variable), "{variable} of {}", path.display());
                    known += 1;
                }
            }
        }
    }
    assert!(known > 10, "{known}");
}

/// CONTRIBUTING's worked examples name files, and functions or types in them, that are there. What only
/// a recipe makes stands under `target`.
#[test]
fn what_contributing_names_is_there() {
    let text = read("CONTRIBUTING.md");
    let place = Regex::new(r"`([\w./-]+/[\w./-]+)(?:::(\w+))?`").unwrap();
    let mut named = 0;
    for found in place.captures_iter(&text).filter(|found| !found[1].starts_with("target/")) {
        let path = root().join(&found[1]);
        assert!(path.exists(), "{} is not there", &found[1]);
        named += 1;
        let Some(item) = found.get(2) else { continue };
        let defined =
            format!(r"\b(fn|struct|enum|const) {}\b|\n    {} \{{", item.as_str(), item.as_str());
        let is_defined =
            Regex::new(&defined).unwrap().is_match(&fs::read_to_string(&path).unwrap());
        assert!(is_defined, "{} has no {}", &found[1], item.as_str());
    }
    assert!(named > 25, "{named} places");
}
