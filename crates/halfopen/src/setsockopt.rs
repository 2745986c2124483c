//! `halfopen setsockopt`: options of live sockets of another process, changed without its help, by a
//! duplicate of its descriptor. It changes nothing unless it is told to.

use crate::audit::{self, Live, Machine};
use crate::cli::SetsockoptArgs;
use crate::output::{self, Exit, Format};
use anyhow::{Context, Result, anyhow, bail};
use observe::sockets::{Holder, Place};
use report::audit::Socket;
use spec::facts::TcpFacts;
use spec::{Facts, SocketOptions};
use std::time::Duration;

pub(crate) fn run(arguments: &SetsockoptArgs) -> Exit {
    if let Some(missing) = audit::missing(Some(arguments.pid)) {
        return output::fail(Exit::USAGE, &missing);
    }
    if let Some(hidden) = audit::hidden(arguments.pid) {
        return output::fail(Exit::SKIPPED, &hidden);
    }
    let wanted = match wanted(&arguments.options) {
        Ok(wanted) => wanted,
        Err(error) => return output::fail(Exit::USAGE, &error),
    };
    match change(arguments, &wanted) {
        Ok(exit) => exit,
        Err(error) => output::fail(Exit::SKIPPED, &error),
    }
}

/// A connection that is to change.
struct Target {
    before: Socket,
    after: Socket,
    holder: Holder,
}

fn change(arguments: &SetsockoptArgs, wanted: &SocketOptions) -> Result<Exit> {
    let machine = Machine::look(Some(arguments.pid));
    let mut targets = targets(&machine, arguments, wanted)?;
    let mut failed = Vec::new();
    let mut undo = Vec::new();
    if arguments.yes {
        targets.retain(|Target { before, holder, .. }| match set(holder, before.inode, wanted) {
            Ok(()) => true,
            Err(error) => {
                failed.push(format!("{} - {}: {error:#}", before.local, before.remote));
                false
            }
        });
        undo.extend(targets.iter().map(|target| undoing(arguments.pid, &target.before, wanted)));
        undo.sort();
        undo.dedup();
        look_again(&machine, arguments, &mut targets)?;
    }
    let changes: Vec<_> = targets.into_iter().map(|target| (target.before, target.after)).collect();
    let written = match arguments.output.format {
        Format::Human | Format::Jsonl => {
            output::print(told(&changes, &undo, arguments.yes).as_bytes())
        }
        Format::Json => output::print(&report::audit::changed_json(
            machine.kernel(),
            machine.hz(),
            &changes,
            &undo,
        )),
    };
    let errors = failed.iter().map(|why| output::fail(Exit::SKIPPED, &anyhow!("{why}")));
    Ok(errors.fold(written, Exit::and))
}

fn told(changes: &[(Socket, Socket)], undo: &[String], is_told_to: bool) -> String {
    let of_each = changes.iter().map(|(before, after)| report::audit::change(before, after));
    let mut text: String = of_each.collect();
    if !is_told_to {
        text += "\nnothing was changed: --yes does it\n";
    } else if !undo.is_empty() {
        text += "\nchanged; to take it back:\n";
        text.extend(undo.iter().map(|line| format!("  {line}\n")));
    }
    text
}

/// The connections of the process, as they are and as they would be.
fn targets(
    machine: &Machine,
    arguments: &SetsockoptArgs,
    wanted: &SocketOptions,
) -> Result<Vec<Target>> {
    let pid = arguments.pid;
    let mut targets = Vec::new();
    let mut unread = Vec::new();
    each(machine, arguments, |Live { socket, facts, holders, is_mptcp }| {
        let (Some(holder), Some(options)) = (holders.first(), socket.options.clone()) else {
            unread.extend(socket.unread);
            return;
        };
        let after = Socket {
            options: Some(changed(&options, wanted)),
            outlook: audit::outlook(&facts_after(facts, wanted), is_mptcp),
            ..socket.clone()
        };
        targets.push(Target { before: socket, after, holder: holder.clone() });
    })?;
    if let Some(why) = unread.first() {
        bail!("{} of the sockets of process {pid} cannot be reached: {why}", unread.len());
    }
    if targets.is_empty() {
        let with = arguments.port.map_or_else(String::new, |port| format!(" with port {port}"));
        bail!("process {pid} has no TCP connection{with}");
    }
    Ok(targets)
}

fn each(machine: &Machine, arguments: &SetsockoptArgs, take: impl FnMut(Live)) -> Result<()> {
    let pid = arguments.pid;
    let namespace = audit::of_process(pid)?;
    let (inode, place) = (namespace.inode(), Place { namespace, container: None });
    audit::of_place(machine, inode, &place, (Some(pid), arguments.port), take)
}

/// What has become of them: when they find out counts from this look. One that is gone meanwhile stays as
/// it would have been.
fn look_again(machine: &Machine, arguments: &SetsockoptArgs, targets: &mut [Target]) -> Result<()> {
    each(machine, arguments, |Live { socket, .. }| {
        let is_it = |target: &&mut Target| target.before.inode == socket.inode;
        if let Some(target) = targets.iter_mut().find(is_it) {
            target.after = socket;
        }
    })
}

/// Sets them.
fn set(holder: &Holder, inode: u32, wanted: &SocketOptions) -> Result<()> {
    let is_there = holder.set(inode, wanted).context("setting its options")?;
    anyhow::ensure!(is_there, "the process has closed it meanwhile");
    Ok(())
}

fn changed(options: &SocketOptions, wanted: &SocketOptions) -> SocketOptions {
    SocketOptions {
        keepalive: wanted.keepalive.or(options.keepalive),
        keepidle_s: wanted.keepidle_s.or(options.keepidle_s),
        keepintvl_s: wanted.keepintvl_s.or(options.keepintvl_s),
        keepcnt: wanted.keepcnt.or(options.keepcnt),
        user_timeout_ms: wanted.user_timeout_ms.or(options.user_timeout_ms),
        rto_max_ms: wanted.rto_max_ms.or(options.rto_max_ms),
        ..options.clone()
    }
}

/// What would be known of the socket then. `SO_KEEPALIVE` arms the timer for the whole idle time
/// (`tcp_set_keepalive`), `TCP_KEEPIDLE` for what is left of it (`tcp_sock_set_keepidle_locked`).
fn facts_after(facts: &Facts, wanted: &SocketOptions) -> Facts {
    let mut facts = facts.clone();
    let Some(tcp) = &mut facts.tcp else { return facts };
    let before = tcp.options_set.clone().unwrap_or_default();
    let options = changed(&before, wanted);
    let idle_ms = options.keepidle_s.unwrap_or(7200).saturating_mul(1000);
    let is_on = options.keepalive == Some(true);
    match tcp.timer {
        0 if is_on && before.keepalive != Some(true) => {
            (tcp.timer, tcp.timer_expires_ms) = (TcpFacts::TIMER_KEEPALIVE, idle_ms);
        }
        TcpFacts::TIMER_KEEPALIVE if !is_on => (tcp.timer, tcp.timer_expires_ms) = (0, 0),
        TcpFacts::TIMER_KEEPALIVE if wanted.keepidle_s.is_some() => {
            let idle_for_ms = tcp.last_ack_recv_ms.min(tcp.last_data_recv_ms);
            tcp.timer_expires_ms = idle_ms.saturating_sub(idle_for_ms);
        }
        _ => {}
    }
    tcp.options_set = Some(options);
    facts
}

/// The command that takes a change back.
fn undoing(pid: u32, before: &Socket, wanted: &SocketOptions) -> String {
    let old = before.options.clone().unwrap_or_default();
    let mut words = Vec::new();
    let seconds = |name: &str, value: Option<u32>| Some(format!("{name}={}s", value?));
    if wanted.keepidle_s.is_some() {
        words.extend(seconds("keepidle", old.keepidle_s));
    }
    if wanted.keepintvl_s.is_some() {
        words.extend(seconds("keepintvl", old.keepintvl_s));
    }
    if wanted.keepcnt.is_some() {
        words.extend(old.keepcnt.map(|count| format!("keepcnt={count}")));
    }
    if wanted.keepalive.is_some() {
        let on = old.keepalive.map(|on| if on { "keepalive=on" } else { "keepalive=off" });
        words.extend(on.map(str::to_owned));
    }
    if wanted.user_timeout_ms.is_some() {
        words.extend(old.user_timeout_ms.map(|ms| format!("user_timeout={ms}ms")));
    }
    if wanted.rto_max_ms.is_some() {
        words.extend(old.rto_max_ms.map(|ms| format!("rto_max={ms}ms")));
    }
    // The end that this connection alone has.
    let port = if before.accepted { before.remote.port() } else { before.local.port() };
    format!("halfopen setsockopt --pid {pid} --port {port} {} --yes", words.join(" "))
}

/// The options that are asked for.
fn wanted(arguments: &[String]) -> Result<SocketOptions> {
    let mut wanted = SocketOptions::default();
    for argument in arguments {
        let (name, value) = argument.split_once('=').with_context(|| {
            format!("`{argument}`: an option is OPTION=VALUE, such as keepalive=30/5/3")
        })?;
        let failed = || format!("`{argument}`");
        match name {
            "keepalive" => keepalive(&mut wanted, value).with_context(failed)?,
            "keepidle" => wanted.keepidle_s = Some(seconds(value).with_context(failed)?),
            "keepintvl" => wanted.keepintvl_s = Some(seconds(value).with_context(failed)?),
            "keepcnt" => wanted.keepcnt = Some(count(value).with_context(failed)?),
            "user_timeout" => wanted.user_timeout_ms = Some(timeout(value).with_context(failed)?),
            "rto_max" => wanted.rto_max_ms = Some(rto_max(value).with_context(failed)?),
            _ => bail!(
                "there is no option `{name}`: keepalive, keepidle, keepintvl, keepcnt, user_timeout and \
                 rto_max can be set"
            ),
        }
    }
    Ok(wanted)
}

/// `on`, `off`, or seconds of idle time and interval, and a count.
fn keepalive(wanted: &mut SocketOptions, value: &str) -> Result<()> {
    let parts: Vec<_> = value.split('/').collect();
    match parts[..] {
        ["on"] => wanted.keepalive = Some(true),
        ["off"] => wanted.keepalive = Some(false),
        [idle, interval, probes] => {
            wanted.keepalive = Some(true);
            (wanted.keepidle_s, wanted.keepintvl_s) =
                (Some(seconds(idle)?), Some(seconds(interval)?));
            wanted.keepcnt = Some(count(probes)?);
        }
        _ => bail!(
            "it is on, off, or IDLE/INTERVAL/COUNT, such as 30/5/3 (seconds, seconds, probes)"
        ),
    }
    Ok(())
}

/// Whole seconds, with or without a unit: the kernel takes 1 to 32767 (`MAX_TCP_KEEPIDLE`).
fn seconds(value: &str) -> Result<u32> {
    let whole = |time: Duration| (time.subsec_nanos() == 0).then_some(time.as_secs());
    let number = value.parse().ok().or_else(|| spec::duration::parse(value).ok().and_then(whole));
    let number = number.filter(|number| (1..=32_767).contains(number));
    number.map(|number: u64| number as u32).context("it is whole seconds from 1 to 32767")
}

/// `MAX_TCP_KEEPCNT`.
fn count(value: &str) -> Result<u32> {
    let number = value.parse().ok().filter(|number| (1..=127).contains(number));
    number.context("it is a number of probes from 1 to 127")
}

fn timeout(value: &str) -> Result<u32> {
    const WHAT: &str = "it is a time from 1ms to 24d, such as 30s, or off";
    if value == "off" {
        return Ok(0);
    }
    let time = spec::duration::parse(value).ok().context(WHAT)?;
    // An int of milliseconds; 0 is `off`.
    u32::try_from(time.as_millis()).ok().filter(|ms| i32::try_from(*ms).is_ok()).context(WHAT)
}

/// `TCP_RTO_MAX_MS` (Linux 6.15) takes 1 to 120 s.
fn rto_max(value: &str) -> Result<u32> {
    let time = spec::duration::parse(value).ok();
    let time = time.filter(|time| (1000..=120_000).contains(&time.as_millis()));
    time.map(|time| time.as_millis() as u32).context("it is a time from 1s to 120s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn parsed(words: &[&str]) -> Result<SocketOptions> {
        wanted(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read_and_refused() {
        let wanted = parsed(&["keepalive=30/5/3", "user_timeout=30s", "rto_max=5s"]).unwrap();
        assert_eq!(
            wanted,
            SocketOptions {
                keepalive: Some(true),
                keepidle_s: Some(30),
                keepintvl_s: Some(5),
                keepcnt: Some(3),
                user_timeout_ms: Some(30_000),
                rto_max_ms: Some(5_000),
                ..SocketOptions::default()
            }
        );
        assert_eq!(parsed(&["keepalive=off"]).unwrap().keepalive, Some(false));
        assert_eq!(parsed(&["user_timeout=off"]).unwrap().user_timeout_ms, Some(0));
        assert_eq!(parsed(&["keepidle=2m"]).unwrap().keepidle_s, Some(120));
        for bad in [
            "keepalive",
            "keepalive=maybe",
            "keepalive=1/2",
            "keepalive=0/1/1",
            "keepcnt=128",
            "keepidle=1500ms",
            "keepintvl=40000",
            "user_timeout=30d",
            "rto_max=500ms",
            "linger=1",
        ] {
            assert!(parsed(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_change_is_taken_back_by_the_old_values() {
        let old = SocketOptions {
            keepalive: Some(false),
            keepidle_s: Some(7200),
            keepintvl_s: Some(75),
            keepcnt: Some(9),
            user_timeout_ms: Some(0),
            ..SocketOptions::default()
        };
        let socket = Socket {
            owners: vec![(812, "redis-cli".into())],
            local: ([127, 0, 0, 1], 41_234).into(),
            remote: ([127, 0, 0, 1], 6379).into(),
            accepted: false,
            state: "ESTABLISHED".into(),
            namespace: 1,
            container: None,
            inode: 1,
            receive_queue: 0,
            send_queue: 0,
            options: Some(old.clone()),
            unread: None,
            sampled_ns: 0,
            outlook: model::outlook(&Facts {
                kernel: "6.12".into(),
                hz: 250,
                sysctl: BTreeMap::new(),
                server_sysctl: BTreeMap::new(),
                tcp: None,
                jiffies: None,
                virtual_time: false,
                neighbour: None,
                server_tcp: None,
            }),
        };
        let wanted = parsed(&["keepalive=30/5/3", "user_timeout=30s"]).unwrap();
        let line = undoing(812, &socket, &wanted);
        let words: Vec<_> = line.split(' ').skip(6).collect();
        let (yes, options) = words.split_last().unwrap();
        assert_eq!(*yes, "--yes");
        let back = parsed(options).unwrap();
        assert_eq!(changed(&changed(&old, &wanted), &back), old);
        assert!(line.starts_with("halfopen setsockopt --pid 812 --port 41234 "), "{line}");
    }
}
