//! A run as comma-separated values (RFC 4180): a line for each trial, a column for each setting that
//! varies.

use crate::digest::Digest;
use crate::summary::Groups;
use std::io::{self, Write};

/// Writes `run.csv`. `trials` are those of a group, by its place.
///
/// # Errors
/// What reading a trial or writing fails with.
pub fn run<T: Iterator<Item = io::Result<Digest>>>(
    output: &mut dyn Write,
    groups: &Groups,
    trials: impl Fn(usize) -> T,
) -> io::Result<()> {
    let keys = groups.varying();
    let mut writer = csv::Writer::from_writer(output);
    let rest =
        ["verdict", "outcome", "earliest_s", "latest_s", "detected_s", "noticed_s", "reason"];
    let heads = ["experiment", "number"].into_iter().chain(keys.iter().map(String::as_str));
    writer.write_record(heads.chain(rest))?;
    for group in groups.all() {
        let values = Groups::values(group, &keys, "");
        for digest in trials(group.place()) {
            let digest = digest?;
            let seconds = |time: Option<f64>| time.map(|time| time.to_string()).unwrap_or_default();
            let spans = digest.windows.iter().filter_map(|window| window.span);
            let earliest = spans.clone().map(|(earliest, _)| earliest.as_secs_f64());
            let latest = spans.map(|(_, latest)| latest.as_secs_f64());
            let name = [group.experiment.name.clone(), digest.number.to_string()];
            let came_to = [
                digest.status.to_string(),
                digest.outcome.map(|outcome| outcome.to_string()).unwrap_or_default(),
                seconds(earliest.reduce(f64::min)),
                seconds(latest.reduce(f64::max)),
                seconds(digest.detected_s),
                seconds(digest.noticed_s),
                digest.reason,
            ];
            writer.write_record(name.iter().chain(&values).chain(&came_to))?;
        }
    }
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn what_varies_is_a_column_and_a_comma_ends_no_field() {
        let mut other = samples::sending();
        other.experiment.parameters.sysctl.insert("tcp_retries2".into(), "3".into());
        other.verdict.word = verdict::Word::Disagrees;
        other.verdict.reason = "late, by a lot".into();
        let trials = [samples::sending(), other];
        let groups = Groups::of(&trials);
        let mut bytes = Vec::new();
        let of_group = |place: usize| std::iter::once(Ok(Digest::new(place, &trials[place])));
        run(&mut bytes, &groups, of_group).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("experiment,number,sysctl.tcp_retries2,verdict,"), "{text}");
        assert!(
            lines[2].contains(",3,disagrees,") && lines[2].ends_with(",\"late, by a lot\""),
            "{text}"
        );
    }
}
