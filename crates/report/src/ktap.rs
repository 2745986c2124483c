//! Verdicts as KTAP, the kernel's test output (Documentation/dev-tools/ktap.rst).
//!
//! `ok` is a trial that agrees, `# SKIP` one that this machine cannot run. KTAP has no word for what could
//! not be decided: an inconclusive trial is `not ok`, and its reason says so.

use crate::digest::Digest;
use crate::summary::Groups;
use crate::trial::Status;
use std::io::{self, Write};

/// The report of one run. `trials` gives those of a group, by its place.
///
/// # Errors
/// Those of `output` and of `trials`, which are read one by one.
pub fn report<T>(
    output: &mut dyn Write,
    groups: &Groups,
    mut trials: impl FnMut(usize) -> T,
) -> io::Result<()>
where
    T: IntoIterator<Item = io::Result<Digest>>,
{
    let count: usize = groups.all().iter().map(|group| group.numbers().len()).sum();
    writeln!(output, "KTAP version 1\n1..{count}")?;
    let mut number = 0;
    for group in groups.all() {
        let name = line(&groups.name(group));
        for digest in trials(group.place()) {
            number += 1;
            let digest = digest?;
            let (result, directive) = match digest.status {
                Status::Agrees => ("ok", String::new()),
                Status::Skipped => ("ok", format!(" # SKIP {}", line(&digest.reason))),
                status @ (Status::Inconclusive
                | Status::Unmet
                | Status::Disagrees
                | Status::Failed) => ("not ok", format!(" # {status}: {}", line(&digest.reason))),
            };
            writeln!(output, "{result} {number} {name} {}{directive}", digest.number)?;
        }
    }
    Ok(())
}

/// Text in one line, without what begins a directive.
fn line(text: &str) -> String {
    text.replace('#', "").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn each_trial_is_a_line() {
        let trials = [samples::keepalive(), samples::late(), samples::crash()];
        let mut groups = Groups::default();
        let digests: Vec<_> = trials
            .iter()
            .enumerate()
            .map(|(position, trial)| {
                let mut digest = Digest::new(position, trial);
                if position == 2 {
                    digest.status = Status::Skipped;
                    digest.reason = "no nginx:\n# apt-get".into();
                }
                (groups.add(&trial.experiment, &digest), digest)
            })
            .collect();
        let mut output = Vec::new();
        let of =
            |place| digests.iter().filter(move |(of, _)| *of == place).map(|d| Ok(d.1.clone()));
        report(&mut output, &groups, of).unwrap();
        let text = String::from_utf8(output).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..2], ["KTAP version 1", "1..3"]);
        let has = |what: [&str; 2]| lines.iter().any(|line| what.iter().all(|w| line.contains(w)));
        assert!(lines[2].starts_with("ok 1 host-crash-idle-keepalive "), "{text}");
        assert!(has(["not ok ", " # disagrees: "]), "{text}");
        assert!(has(["ok 3 ", " # SKIP no nginx: apt-get"]), "{text}");
        assert_eq!(lines.len(), 5, "{text}");
    }
}
