//! A time axis for events that lie microseconds and hours apart: each event has its row, and the
//! space between two rows grows with the logarithm of the time between them.

/// From moments to heights, both growing.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    /// Moments in nanoseconds with the height of their rows.
    rows: Vec<(u64, f64)>,
}

/// Gaps below this get no space beyond their rows.
const SHORTEST_S: f64 = 0.005;
/// No gap gets more than this.
const MOST: f64 = 76.0;

impl Axis {
    /// Places rows, given in the order of time with the height each needs, from `top` on. Returns
    /// the axis and the baseline of each row.
    pub(super) fn new(top: f64, rows: impl IntoIterator<Item = (u64, f64)>) -> (Self, Vec<f64>) {
        let mut placed = Vec::new();
        let mut heights = Vec::new();
        let mut y = top;
        let mut before: Option<u64> = None;
        for (at_ns, height) in rows {
            let gap_s = before.map_or(0.0, |before| at_ns.saturating_sub(before) as f64 / 1e9);
            y += height + space(gap_s);
            before = Some(at_ns);
            heights.push(y);
            match placed.last_mut() {
                Some((last, _)) if *last >= at_ns => {}
                _ => placed.push((at_ns, y)),
            }
        }
        (Self { rows: placed }, heights)
    }

    /// The height of a moment, between the rows around it.
    pub(super) fn y(&self, at_ns: u64) -> f64 {
        let after = self.rows.partition_point(|(row_ns, _)| *row_ns <= at_ns);
        match (after.checked_sub(1).and_then(|index| self.rows.get(index)), self.rows.get(after)) {
            (Some((from_ns, from)), Some((to_ns, to))) => {
                from + (to - from) * (at_ns - from_ns) as f64 / (to_ns - from_ns) as f64
            }
            (Some((_, y)), None) | (None, Some((_, y))) => *y,
            (None, None) => 0.0,
        }
    }

    /// The height of the last row.
    pub(super) fn bottom(&self) -> f64 {
        self.rows.last().map_or(0.0, |(_, y)| *y)
    }
}

/// What a gap adds to the distance of its rows.
fn space(gap_s: f64) -> f64 {
    if gap_s < SHORTEST_S { 0.0 } else { (8.0 + 10.0 * (gap_s / SHORTEST_S).log10()).min(MOST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards() {
        let rows = [0, 10, 10, 5_000_000_000, 7_200_000_000_000].map(|at_ns| (at_ns, 20.0));
        let (axis, heights) = Axis::new(30.0, rows);
        assert!(heights.is_sorted(), "{heights:?}");
        let moments = [0, 5, 10, 1_000_000_000, 5_000_000_000, u64::MAX];
        let ys: Vec<_> = moments.iter().map(|at_ns| axis.y(*at_ns)).collect();
        assert!(ys.is_sorted(), "{ys:?}");
        assert!((ys[5] - axis.bottom()).abs() < f64::EPSILON);
    }

    #[test]
    fn two_hours_take_more_room_than_a_second_and_fit_on_a_page() {
        assert!(space(7200.0) > space(1.0));
        assert!(space(1.0) > space(0.2));
        assert!(space(30.0 * 86_400.0) <= MOST);
    }
}
