//! Why a machine does not let `halfopen` make its namespaces, and what to do about it.

use nix::errno::Errno;
use nix::unistd::geteuid;
use observe::clock::kernel_release;
use std::fs;

/// The first Linux with everything that a trial needs: `mount_setattr`.
pub(crate) const FLOOR: (u32, u32) = (5, 12);

/// `CAP_SYS_ADMIN`, include/uapi/linux/capability.h.
const CAP_SYS_ADMIN: u32 = 21;

/// What the kernel says of this process and of user namespaces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub(crate) root: bool,
    /// Whether it has CAP_SYS_ADMIN.
    pub(crate) admin: bool,
    /// Whether a seccomp filter is on it, as a container's.
    pub(crate) filtered: bool,
    /// `user.max_user_namespaces`; `None`: this kernel has no user namespaces.
    pub(crate) most: Option<String>,
    /// Debian's `kernel.unprivileged_userns_clone`.
    pub(crate) debian: Option<String>,
    /// Ubuntu's `kernel.apparmor_restrict_unprivileged_userns`.
    pub(crate) apparmor: Option<String>,
}

/// What is in the way, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) why: String,
    pub(crate) remedy: String,
}

/// What to do in a container. Sysctls and mounts need all of it, which no single option gives.
const IN_A_CONTAINER: &str = "start the container with --privileged (docker or podman)";

impl Machine {
    pub(crate) fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let status = read("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        let capabilities = field("CapEff:").and_then(|hex| u64::from_str_radix(&hex, 16).ok());
        Self {
            root: geteuid().is_root(),
            admin: capabilities.unwrap_or(0) >> CAP_SYS_ADMIN & 1 == 1,
            filtered: field("Seccomp:").is_some_and(|mode| mode == "2"),
            most: read("/proc/sys/user/max_user_namespaces"),
            debian: read("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor: read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        }
    }

    /// Root with its capabilities makes namespaces directly; everybody else needs one for users.
    pub(crate) fn needs_user_namespace(&self) -> bool {
        !(self.root && self.admin)
    }

    /// Why user namespaces cannot be made, as far as the kernel says.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        let as_root = if self.root { IN_A_CONTAINER } else { "run halfopen with sudo" };
        let found = |why: &str, remedy: String| Some(Obstacle { why: why.into(), remedy });
        match (self.most.as_deref(), self.debian.as_deref(), self.apparmor.as_deref()) {
            (None, ..) => {
                found("this kernel has no user namespaces (CONFIG_USER_NS)", as_root.into())
            }
            (Some("0"), ..) => found(
                "user.max_user_namespaces is 0",
                format!(
                    "as root of the host: sysctl -w user.max_user_namespaces=10000; or {as_root}"
                ),
            ),
            (_, Some("0"), _) => found(
                "kernel.unprivileged_userns_clone is 0",
                format!(
                    "as root of the host: sysctl -w kernel.unprivileged_userns_clone=1; or {as_root}"
                ),
            ),
            (.., Some("1")) if !self.root => found(
                "AppArmor takes the privileges away in user namespaces of programs without a profile",
                format!("{as_root}; or allow them to this program alone: {}", profile()),
            ),
            _ => None,
        }
    }

    /// Why making namespaces failed: with root's own privileges, if that was tried, and then by way
    /// of a user namespace. The first is the reason; the second is only told where there is no other.
    pub(crate) fn refusal(&self, direct: Option<Errno>, by_user: Errno) -> Obstacle {
        let first = direct.unwrap_or(by_user).desc();
        let who = match (self.root, self.admin) {
            (true, false) => "root without CAP_SYS_ADMIN",
            (true, true) => "root",
            (false, _) => "this user",
        };
        let Obstacle { why, remedy } = self.obstacle().unwrap_or_else(|| Obstacle {
            why: if self.filtered {
                "a seccomp filter forbids them, as in a container".into()
            } else {
                format!("unshare: {}", by_user.desc())
            },
            remedy: if self.root || self.filtered {
                IN_A_CONTAINER.into()
            } else {
                "run halfopen with sudo".into()
            },
        });
        Obstacle { why: format!("{who} may not make namespaces ({first}): {why}"), remedy }
    }
}

impl Machine {
    /// Why a user namespace could be made and not be used. To map user 0, a process needs
    /// CAP_SETFCAP (`verify_root_map`, kernel/user_namespace.c).
    pub(crate) fn unmapped(&self, file: &str, error: &std::io::Error) -> Obstacle {
        let why = format!("writing /proc/self/{file}: {error}");
        if self.root && !self.admin {
            Obstacle {
                why: format!(
                    "root without capabilities cannot use a user namespace either ({why})"
                ),
                remedy: format!(
                    "run halfopen with root's capabilities, or as an ordinary user; or \
                     {IN_A_CONTAINER}"
                ),
            }
        } else {
            let known = self.obstacle().map(|obstacle| obstacle.remedy);
            Obstacle { why, remedy: known.unwrap_or_else(|| "run halfopen with sudo".into()) }
        }
    }

    /// Why a call failed under a seccomp filter, which answers with any errno.
    pub(crate) fn filtered_call(
        &self,
        what: &str,
        error: &impl std::fmt::Display,
    ) -> Option<Obstacle> {
        self.filtered.then(|| Obstacle {
            why: format!("{what}: {error}: a seccomp filter forbids it, as in a container"),
            remedy: IN_A_CONTAINER.into(),
        })
    }
}

/// An AppArmor profile that lets this executable make user namespaces, and changes nothing else.
fn profile() -> String {
    let path = std::env::current_exe()
        .map_or("/usr/bin/halfopen".into(), |path| path.display().to_string());
    format!(
        "echo 'abi <abi/4.0>, profile halfopen {path} flags=(unconfined) {{ userns, }}' | \
         sudo tee /etc/apparmor.d/halfopen && sudo apparmor_parser -r /etc/apparmor.d/halfopen"
    )
}

/// Whether this kernel is too old, in a sentence.
pub(crate) fn too_old() -> Option<String> {
    let release = kernel_release();
    let (major, minor) = FLOOR;
    is_before(&release, FLOOR)
        .then(|| format!(
        "trials need Linux {major}.{minor} or later, on both clocks; this is Linux {release}: use a \
         newer kernel (`halfopen predict`, `judge` and `audit` run on this one)"
    ))
}

fn is_before(release: &str, floor: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < floor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn able() -> Machine {
        Machine { most: Some("100".into()), ..Machine::default() }
    }

    #[test]
    fn each_obstacle_has_its_remedy() {
        let zero = || Some("0".to_owned());
        for (machine, why, remedy) in [
            (Machine::default(), "CONFIG_USER_NS", "sudo"),
            (
                Machine { most: zero(), ..able() },
                "max_user_namespaces is 0",
                "sysctl -w user.max_user_namespaces=10000",
            ),
            (
                Machine { most: zero(), root: true, ..able() },
                "max_user_namespaces is 0",
                "--privileged",
            ),
            (
                Machine { debian: zero(), ..able() },
                "unprivileged_userns_clone is 0",
                "unprivileged_userns_clone=1",
            ),
            (Machine { apparmor: Some("1".into()), ..able() }, "AppArmor", "profile halfopen /"),
        ] {
            let found = machine.obstacle().unwrap();
            assert!(found.why.contains(why) && found.remedy.contains(remedy), "{found:?}");
            assert!(!found.remedy.contains("restrict_unprivileged_userns=0"), "for all programs");
        }
        assert_eq!(able().obstacle(), None);
    }

    #[test]
    fn the_first_refusal_is_told_and_root_is_not_told_to_use_sudo() {
        let container = Machine { root: true, filtered: true, ..able() };
        let Obstacle { why, remedy } = container.refusal(Some(Errno::EPERM), Errno::ENOSPC);
        assert!(why.contains("root without CAP_SYS_ADMIN"), "{why}");
        assert!(why.contains(Errno::EPERM.desc()) && why.contains("seccomp"), "{why}");
        assert!(remedy.contains("--privileged") && !remedy.contains("sudo"), "{remedy}");
        let Obstacle { remedy, .. } = able().refusal(None, Errno::EPERM);
        assert!(remedy.contains("sudo"), "{remedy}");
    }

    #[test]
    fn kernels_before_the_floor() {
        for (release, before) in
            [("5.4.0-26-generic", true), ("5.11.22", true), ("5.12.0", false), ("6.1-rc1", false)]
        {
            assert_eq!(is_before(release, FLOOR), before, "{release}");
        }
    }
}
