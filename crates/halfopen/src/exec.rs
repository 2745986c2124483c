//! `halfopen exec`: commands of the user's as the programs of a trial.

use crate::output::{self, Exit};
use crate::{catalogue, cli, command, run};
use anyhow::{Result, anyhow, bail};
use spec::command::{join, split};
use spec::file::{Override, assemble};
use spec::{Experiment, LostHost, Topology};

const NAME: &str = "exec";
const QUESTION: &str = "When does this program find out, and what does it do then?";

pub(crate) fn run(arguments: &cli::ExecArgs) -> Exit {
    let experiments = catalogue::points(&arguments.trials.overrides()).and_then(|points| {
        let faults = arguments.fault.split(',').map(str::trim);
        let all = faults.flat_map(|fault| points.iter().map(move |point| (fault, point)));
        all.map(|(fault, point)| experiment(arguments, fault, point)).collect()
    });
    match experiments {
        Ok(experiments) => {
            run::conduct(&arguments.trials, experiments, None, &cli::PartsArgs::default())
        }
        Err(error) => output::fail(Exit::USAGE, &error),
    }
}

fn experiment(arguments: &cli::ExecArgs, fault: &str, point: &[Override]) -> Result<Experiment> {
    let cli::ExecArgs { server, ready, listen, proxy, after, on_output, deadline, .. } = arguments;
    let has_proxy = proxy.is_some()
        || point.iter().any(|(key, value)| key == "topology" && value.trim() == "proxy");
    if server.is_none() && listen.is_none() {
        bail!(
            "there is no server: give its command with --server, or a port with --listen for \
               halfopen's own, which sends back what it gets"
        );
    }
    if server.is_none() && arguments.client.is_empty() && !has_proxy {
        bail!("there is no program of yours: give the client's command after `--`, or --server");
    }
    if server.is_some() && listen.is_some() && !arguments.client.is_empty() {
        bail!(
            "--listen: the command of --server chooses its port itself: leave one of the two out"
        );
    }
    let host = match (fault_host(arguments, point)?, arguments.client.is_empty()) {
        (Some(host), _) => host,
        (None, true) if !has_proxy => LostHost::Client.name(),
        (None, _) => LostHost::Server.name(),
    };
    let mut given = vec![("--fault-host", "fault.host", host.to_owned())];
    if let Some(line) = proxy {
        let words = words(line).map_err(|why| anyhow!("--proxy: {why}"))?;
        given.push(("--proxy", "topology", Topology::Proxy.name().to_owned()));
        given.push(("--proxy", "proxy.command", join(&words)));
    }
    if !arguments.client.is_empty() {
        given.push(("-- CLIENT", "client.command", join(&arguments.client)));
    }
    if let Some(line) = server {
        let words = words(line).map_err(|why| anyhow!("--server: {why}"))?;
        given.push(("--server", "server.command", join(&words)));
    }
    let flags = [
        ("--ready", "server.ready", ready.as_deref().map(|line| words(line).map(|w| join(&w)))),
        ("--listen", "server.listen", listen.map(|port| Ok(port.to_string()))),
        ("--fault", "fault.kind", Some(Ok(fault.to_owned()))),
        ("--after", "fault.after", after.clone().map(Ok)),
        ("--on-output", "fault.on_output", on_output.clone().map(Ok)),
        ("--deadline", "deadline", deadline.clone().map(Ok)),
    ];
    for (flag, key, value) in flags {
        if let Some(value) = value {
            given.push((flag, key, value.map_err(|why| anyhow!("{flag}: {why}"))?));
        }
    }
    if arguments.tty {
        given.push(("--tty", "client.tty", "true".into()));
    }
    let is_left = host != LostHost::Client.name() && !arguments.client.is_empty();
    if fault == spec::FaultKind::None.name() && is_left {
        given.push(("exec", "require.exits", "0".into()));
    }
    let defaults = arguments.trials.settings.defaults;
    let experiment =
        assemble(NAME, QUESTION, &given, defaults, point).map_err(|error| anyhow!("{error}"))?;
    command::check(&experiment.parameters)?;
    Ok(experiment)
}

/// The host that breaks, where `--fault-host` or `--set fault.host` says so.
fn fault_host<'a>(arguments: &'a cli::ExecArgs, point: &'a [Override]) -> Result<Option<&'a str>> {
    let set = point.iter().rev().find(|(key, _)| key == "fault.host");
    let set = set.map(|(_, value)| value.trim());
    match (arguments.fault_host.as_deref(), set) {
        (Some(flag), Some(set)) if flag != set => {
            bail!(
                "--fault-host {flag} contradicts --set fault.host={set}: leave one of the two out"
            )
        }
        (flag, set) => Ok(flag.or(set)),
    }
}

/// Words that begin a line which only a shell understands (POSIX, 2.4 and 2.15; `cd`).
const SHELL_WORDS: [&str; 25] = [
    ".", ":", "break", "case", "cd", "command", "continue", "eval", "exec", "exit", "export",
    "for", "if", "readonly", "return", "set", "shift", "times", "trap", "ulimit", "umask", "unset",
    "until", "while", "{",
];

/// A line for a shell as the words of a command: the shell itself, where only that understands it.
fn words(line: &str) -> Result<Vec<String>, String> {
    let for_a_shell = |character| "|&;<>()$`*?[]#~!\n".contains(character);
    let first = line.split_whitespace().next().unwrap_or_default();
    if line.contains(for_a_shell) || first.contains('=') || SHELL_WORDS.contains(&first) {
        Ok(vec!["/bin/sh".into(), "-c".into(), line.into()])
    } else {
        split(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_shell_understands_is_for_a_shell() {
        for line in
            ["exec redis-server", "cd /tmp", "A=1 redis-server", "a; b", "redis-server $HOME"]
        {
            assert_eq!(words(line).unwrap(), ["/bin/sh", "-c", line]);
        }
        assert_eq!(words("redis-server --save ''").unwrap(), ["redis-server", "--save", ""]);
        assert!(words("  ").is_err());
    }
}
