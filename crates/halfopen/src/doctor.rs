//! `halfopen doctor`: what this machine can do, and what to do about what it cannot. Privileges
//! and limits are read; everything else is tried, in the sandbox that trials run in.

use crate::channel::{Check, Message, Task, order};
use crate::obstacle::{self, Machine, Obstacle};
use crate::output::{self, Exit, Format};
use crate::{descriptors, kernels, supervisor};
use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit};
use observe::clock::{hz, kernel_release};
use report::human::{self, CheckState};
use spec::VirtualKernel;
use std::io::{BufRead, BufReader};

pub(crate) fn run(format: Format) -> Exit {
    let mut checks = read_machine();
    match ask_worker() {
        Ok(found) => checks.extend(found),
        Err(error) => checks.push(Check {
            name: "sandbox".into(),
            needed: true,
            result: Err(format!("{error:#}")),
            remedy: String::new(),
        }),
    }
    let missing = checks.iter().any(|check| check.needed && check.result.is_err());
    let exit = if missing { Exit::SKIPPED } else { Exit::AGREES };
    let checks: Vec<human::Check> = checks.into_iter().map(shown).collect();
    let text = match format {
        Format::Json => report::json::doctor(&checks),
        Format::Human | Format::Jsonl => {
            human::doctor(&checks, output::colour(&std::io::stdout())).into_bytes()
        }
    };
    exit.and(output::print(&text))
}

/// What can be read without trying.
fn read_machine() -> Vec<Check> {
    let machine = Machine::read();
    let (major, minor) = obstacle::FLOOR;
    let mut checks = vec![
        Check {
            name: "kernel".into(),
            needed: true,
            result: obstacle::too_old().map_or_else(
                || {
                    Ok(format!(
                        "Linux {}, HZ {} (needed: {major}.{minor} or later)",
                        kernel_release(),
                        hz()
                    ))
                },
                Err,
            ),
            remedy: String::new(),
        },
        note(
            "privileges",
            match (machine.root, machine.admin) {
                (true, true) => "root: tracepoints too, where the kernel has them".into(),
                (true, false) => {
                    "root without CAP_SYS_ADMIN, which can do no more than an ordinary \
                                  user: everything but tracepoints, by way of a user namespace"
                        .into()
                }
                (false, _) => {
                    "an ordinary user: everything but tracepoints, by way of a user namespace"
                        .into()
                }
            },
        ),
    ];
    if machine.needs_user_namespace() {
        checks.push(user_namespaces(&machine));
    }
    checks.push(descriptors());
    checks.push(virtual_kernel());
    checks.push(web_server());
    checks
}

fn note(name: &str, detail: String) -> Check {
    Check { name: name.into(), needed: true, result: Ok(detail), remedy: String::new() }
}

/// Whether user namespaces may be made, as far as sysctls say.
fn user_namespaces(machine: &Machine) -> Check {
    let (result, remedy) = match machine.obstacle() {
        Some(Obstacle { why, remedy }) => (Err(why), remedy),
        None => (
            Ok(format!("allowed, up to {}", machine.most.as_deref().unwrap_or_default())),
            String::new(),
        ),
    };
    Check { name: "user namespaces".into(), needed: true, result, remedy }
}

fn descriptors() -> Check {
    let (result, remedy) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) => {
            let trials = descriptors::trials_within(hard);
            let detail = format!("up to {hard}: {} side by side", spec::counted(trials, "trial"));
            if trials > 0 {
                (Ok(detail), "")
            } else {
                (Err(detail), "raise the limit: ulimit -n 4096")
            }
        }
        Err(errno) => (Err(errno.to_string()), ""),
    };
    Check { name: "file descriptors".into(), needed: true, result, remedy: remedy.into() }
}

/// Has everything else tried in the sandbox.
fn ask_worker() -> Result<Vec<Check>> {
    let mut laboratory = supervisor::start()?;
    let commands = laboratory.stdin.as_mut().context("the lifeline is piped")?;
    order(commands, &Task::Examine)?;
    let stdout = laboratory.stdout.take().context("standard output is piped")?;
    let mut checks = vec![];
    for line in BufReader::new(stdout).lines() {
        match serde_json::from_str(&line?)? {
            Message::Check(check) => checks.push(check),
            Message::Cannot(why) | Message::Died(why) => bail!(why),
            _ => {}
        }
    }
    drop(laboratory.stdin.take());
    let status = laboratory.wait()?;
    anyhow::ensure!(status.success(), "it ended early ({status})");
    checks
        .insert(0, note("sandbox", "namespaces for users, mounts, networks and processes".into()));
    Ok(checks)
}

/// Which kernels `--clock virtual` can have.
fn virtual_kernel() -> Check {
    let name = "virtual kernel".to_owned();
    let found = |path: std::path::PathBuf| path.display().to_string();
    if kernels::ready().is_some() {
        let result = kernels::find(&VirtualKernel::default()).map(found);
        return Check { name, needed: false, result, remedy: "unset HALFOPEN_UML".into() };
    }
    let (built, missing): (Vec<u32>, Vec<u32>) =
        VirtualKernel::HZ.iter().partition(|hz| kernels::find(&kernels::with_hz(**hz)).is_ok());
    let versions: Vec<_> = kernels::built()
        .into_iter()
        .map(|(version, hz)| format!("{version} (HZ {})", list(hz)))
        .collect();
    let versions = match versions.len() {
        0 => String::new(),
        _ => format!("; for --kernel: {}", versions.join(", ")),
    };
    let result = match kernels::find(&VirtualKernel::default()) {
        Err(_) if built.is_empty() => Err(format!("not built: no `--clock virtual`{versions}")),
        Err(_) => Err(format!("HZ {}; `--clock virtual` needs --hz{versions}", list(built))),
        Ok(_) if missing.is_empty() => Ok(format!("HZ {}{versions}", list(built))),
        Ok(_) => Ok(format!(
            "HZ {}; not built: HZ {} (`{}`){versions}",
            list(built),
            list(missing.clone()),
            kernels::how_to_build(&kernels::with_hz(missing[0]))
        )),
    };
    Check { name, needed: false, result, remedy: kernels::how_to_build(&VirtualKernel::default()) }
}

fn list(hz: impl IntoIterator<Item = u32>) -> String {
    hz.into_iter().map(|hz| hz.to_string()).collect::<Vec<_>>().join(", ")
}

fn web_server() -> Check {
    let install = spec::Program::Nginx.description().install;
    let (executable, remedy) = install.map_or(("", ""), |i| (i.executable, i.remedy));
    let result = match peer::find(executable) {
        Some(path) => Ok(path.display().to_string()),
        None => Err("not installed: no web-server experiments".to_owned()),
    };
    Check { name: executable.into(), needed: false, result, remedy: remedy.into() }
}

fn shown(check: Check) -> human::Check {
    let (state, detail) = match (check.result, check.needed) {
        (Ok(detail), _) => (CheckState::Ok, detail),
        (Err(detail), false) => (CheckState::Warn, detail),
        (Err(detail), true) => (CheckState::Missing, detail),
    };
    let remedy = (state != CheckState::Ok && !check.remedy.is_empty()).then_some(check.remedy);
    human::Check { name: check.name, state, detail, remedy }
}
