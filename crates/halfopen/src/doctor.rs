//! `halfopen doctor`: what this machine can do, and what to do about what it cannot. Privileges
//! and limits are read; everything else is tried, in the sandbox that trials run in.

use crate::channel::{Check, Message, Task, order};
use crate::output::{self, Exit};
use crate::{descriptors, kernels, supervisor};
use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit};
use observe::clock::{hz, kernel_release};
use report::human::{self, CheckState};
use std::io::{BufRead, BufReader};

pub(crate) fn run() -> Exit {
    let mut checks = read_machine();
    match ask_worker() {
        Ok(found) => checks.extend(found),
        Err(error) => checks.push(Check {
            name: "sandbox".into(),
            needed: true,
            result: Err(format!("{error:#}")),
            remedy: "see the lines above".into(),
        }),
    }
    let missing = checks.iter().any(|check| check.needed && check.result.is_err());
    let exit = if missing { Exit::SKIPPED } else { Exit::AGREES };
    let checks: Vec<human::Check> = checks.into_iter().map(shown).collect();
    let colour = output::colour(&std::io::stdout());
    let written = output::print(human::doctor(&checks, colour).as_bytes());
    exit.and(written)
}

/// What can be read without trying.
fn read_machine() -> Vec<Check> {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let root = nix::unistd::geteuid().is_root();
    let mut checks = vec![
        note("kernel", format!("Linux {}, HZ {}", kernel_release(), hz())),
        note(
            "privileges",
            if root {
                "root: tracepoints too, where the kernel has them".into()
            } else {
                "an ordinary user: everything but tracepoints, by way of a user namespace".into()
            },
        ),
    ];
    if !root {
        checks.push(user_namespaces(
            read("/proc/sys/user/max_user_namespaces").as_deref(),
            read("/proc/sys/kernel/unprivileged_userns_clone").as_deref(),
            read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref(),
        ));
    }
    checks.push(descriptors());
    checks.push(virtual_kernel());
    checks.push(web_server());
    checks
}

fn note(name: &str, detail: String) -> Check {
    Check { name: name.into(), needed: true, result: Ok(detail), remedy: String::new() }
}

/// Whether an ordinary user may make user namespaces, by the sysctls that say so.
fn user_namespaces(most: Option<&str>, debian: Option<&str>, apparmor: Option<&str>) -> Check {
    let (result, remedy) = match (most, debian, apparmor) {
        (None, ..) => (
            Err("this kernel has none (CONFIG_USER_NS)".to_owned()),
            "run halfopen with sudo".to_owned(),
        ),
        (Some("0"), ..) => (
            Err("user.max_user_namespaces is 0".to_owned()),
            "sudo sysctl user.max_user_namespaces=10000, or run halfopen with sudo".to_owned(),
        ),
        (_, Some("0"), _) => (
            Err("kernel.unprivileged_userns_clone is 0".to_owned()),
            "sudo sysctl kernel.unprivileged_userns_clone=1, or run halfopen with sudo".to_owned(),
        ),
        (.., Some("1")) => (
            Err("AppArmor takes the privileges away in them".to_owned()),
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, or run halfopen with sudo"
                .to_owned(),
        ),
        (Some(most), ..) => (Ok(format!("allowed, up to {most}")), String::new()),
    };
    Check { name: "user namespaces".into(), needed: true, result, remedy }
}

fn descriptors() -> Check {
    let (result, remedy) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) => {
            let trials = descriptors::trials_within(hard);
            let detail = format!("up to {hard}: {trials} trials side by side");
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
        let result = kernels::find(kernels::HZ_DEFAULT).map(found);
        return Check { name, needed: false, result, remedy: "unset HALFOPEN_UML".into() };
    }
    let list = |of: &[u32]| of.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let (built, missing): (Vec<u32>, Vec<u32>) =
        kernels::HZ.iter().partition(|hz| kernels::find(**hz).is_ok());
    let result = match kernels::find(kernels::HZ_DEFAULT) {
        Err(_) if built.is_empty() => Err("not built: no `--clock virtual`".to_owned()),
        Err(_) => Err(format!("HZ {}; `--clock virtual` needs --hz", list(&built))),
        Ok(_) if missing.is_empty() => Ok(format!("HZ {}", list(&built))),
        Ok(_) => Ok(format!(
            "HZ {}; not built: HZ {} (`{}`)",
            list(&built),
            list(&missing),
            kernels::how_to_build(missing[0])
        )),
    };
    Check { name, needed: false, result, remedy: kernels::how_to_build(kernels::HZ_DEFAULT) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_obstacle_to_user_namespaces_has_its_remedy() {
        for (most, debian, apparmor, remedy) in [
            (None, None, None, "sudo"),
            (Some("0"), None, None, "user.max_user_namespaces=10000"),
            (Some("100"), Some("0"), None, "kernel.unprivileged_userns_clone=1"),
            (Some("100"), None, Some("1"), "apparmor_restrict_unprivileged_userns=0"),
        ] {
            let check = user_namespaces(most, debian, apparmor);
            assert!(check.result.is_err() && check.remedy.contains(remedy), "{check:?}");
        }
        assert!(user_namespaces(Some("100"), Some("1"), Some("0")).result.is_ok());
    }
}
