//! The two ends of a connection's life: `connect` and `close`.

use super::Finding;
use super::exhibit::{Bench, time};
use spec::{Errno, Outcome, counted};

pub(super) fn syn(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("connect-host-down")?;
    let (retries, linear) = (
        exhibit.sysctl("tcp_syn_retries").ok_or("tcp_syn_retries is not known")?,
        exhibit.sysctl("tcp_syn_linear_timeouts").unwrap_or(0),
    );
    let sent = exhibit.measured.retransmits_on_wire.unwrap_or(0);
    let text = format!(
        "tcp_syn_retries = {retries}: a SYN was sent again {}, and connect was told {}.",
        counted(sent, "time"),
        exhibit.told()
    );
    if !matches!(exhibit.measured.outcome, Outcome::Errno(Errno::ETIMEDOUT | Errno::EHOSTUNREACH)) {
        return Ok(Finding::holds_if(false, text));
    }
    let condition = format!(
        "It is no count of {retries}: the first {linear} stay a second apart \
         (tcp_syn_linear_timeouts), and what comes first ends it, {} of them or the time that \
         {retries} doublings of a second take.",
        retries + linear
    );
    let conditions: Vec<_> = (sent != retries).then_some(condition).into_iter().collect();
    Ok(Finding::with_conditions(text, &conditions))
}

pub(super) fn orphan(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("close-host-crash")?;
    Ok(Finding::holds_if(
        exhibit.measured.outcome == Outcome::Released,
        format!(
            "tcp_orphan_retries = {}: the FIN was sent again {}, and the kernel forgot the \
             connection after {}; the program, which had closed it, was told nothing.",
            exhibit.sysctl("tcp_orphan_retries").map_or("?".into(), |value| value.to_string()),
            counted(exhibit.measured.retransmits_on_wire.unwrap_or(0), "time"),
            exhibit.measured.detected_s.map_or("never".into(), time)
        ),
    ))
}

pub(super) fn fin_timeout(bench: &Bench<'_>) -> Result<Finding, String> {
    let short = bench.best("close-frozen-server")?;
    let long = bench.best("close-frozen-server-61s")?;
    let timeout_s = |e: &super::exhibit::Sound<'_>| {
        e.sysctl("tcp_fin_timeout").map(f64::from).ok_or("tcp_fin_timeout is not known")
    };
    let (short_s, long_s) = (timeout_s(&short)?, timeout_s(&long)?);
    let text = format!(
        "tcp_fin_timeout = {}: forgotten after {}.",
        time(short_s),
        short.measured.detected_s.map_or("never".into(), time)
    );
    let so = short.measured.detected_s.is_some_and(|at_s| at_s >= short_s);
    if !so {
        return Ok(Finding::holds_if(false, text));
    }
    let condition = long.measured.detected_s.filter(|at_s| *at_s < long_s).map(|at_s| {
        format!(
            "Beyond 60 s not even that long: with {} it was forgotten after {}, twice the second \
             past 60.",
            time(long_s),
            time(at_s)
        )
    });
    Ok(Finding::with_conditions(text, condition.as_slice()))
}
