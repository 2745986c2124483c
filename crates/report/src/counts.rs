//! How many trials of several have which status.

use crate::trial::Status;

/// How many trials have each [`Status`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts(pub(crate) [usize; Status::ALL.len()]);

impl FromIterator<Status> for Counts {
    fn from_iter<T: IntoIterator<Item = Status>>(statuses: T) -> Self {
        let mut counts = Self::default();
        statuses.into_iter().for_each(|status| counts.0[status as usize] += 1);
        counts
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown: Vec<_> = Status::ALL
            .into_iter()
            .zip(self.0)
            .filter(|(_, count)| *count > 0)
            .map(|(status, count)| match status {
                Status::Agrees if count > 1 => format!("{count} agree"),
                Status::Disagrees if count > 1 => format!("{count} disagree"),
                status => format!("{count} {status}"),
            })
            .collect();
        formatter.pad(&if shown.is_empty() { "no trials".into() } else { shown.join(", ") })
    }
}
