//! Whose rights a program has.
#![expect(unsafe_code, reason = "keyctl has no safe wrapper")]

use crate::Error;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, User, getegid, geteuid, getgrouplist, getgroups};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::fs;
use std::io;

/// The user who called halfopen: under sudo the one who called sudo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user's number.
    pub uid: u32,
    /// The number of the user's own group.
    pub gid: u32,
    /// The user's other groups.
    pub groups: Vec<u32>,
    /// Privileges are those of a user namespace, in which this user is 0 and no other is known.
    pub mapped: bool,
}

impl Identity {
    /// The user who called this process. Only root is believed what sudo says.
    pub fn of_caller() -> Self {
        Self::under_sudo().unwrap_or_else(|| Self {
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            groups: getgroups().unwrap_or_default().into_iter().map(Gid::as_raw).collect(),
            mapped: false,
        })
    }

    /// The user of this name; `None`: there is none.
    pub fn of_user(name: &str) -> Option<Self> {
        let user = User::from_name(name).ok().flatten()?;
        let groups = getgrouplist(&CString::new(name).ok()?, user.gid);
        let groups = groups.unwrap_or_else(|_| vec![user.gid]);
        let groups = groups.into_iter().map(Gid::as_raw).collect();
        Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups, mapped: false })
    }

    /// The user who called sudo, if this process is root by it.
    pub fn under_sudo() -> Option<Self> {
        let id = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let (uid, gid) = (id("SUDO_UID")?, id("SUDO_GID")?);
        if !geteuid().is_root() || uid == 0 {
            return None;
        }
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let name = user.and_then(|user| CString::new(user.name).ok());
        let groups = name.and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok());
        let groups = groups.unwrap_or_else(|| vec![Gid::from_raw(gid)]);
        let groups = groups.into_iter().map(Gid::as_raw).collect();
        Some(Self { uid, gid, groups, mapped: false })
    }

    /// Becomes this user for good. Capabilities go, but for those that user 0 keeps.
    ///
    /// # Errors
    /// The first step that was refused.
    pub fn assume(&self) -> Result<(), Error> {
        let operation = || format!("becoming user {}, group {}", self.uid, self.gid);
        if self.mapped {
            // Nested: there the user has the number that it has outside.
            unshare(CloneFlags::CLONE_NEWUSER).map_err(Error::of(operation()))?;
            let maps = [
                ("setgroups", "deny".to_owned()),
                ("uid_map", format!("{} 0 1", self.uid)),
                ("gid_map", format!("{} 0 1", self.gid)),
            ];
            for (file, content) in maps {
                fs::write(format!("/proc/self/{file}"), content)
                    .map_err(Error::of(format!("writing /proc/self/{file}")))?;
            }
            return Ok(());
        }
        let is_another = Uid::from_raw(self.uid) != geteuid();
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let set = match nix::unistd::setgroups(&groups) {
            // Under `unshare -r` nobody may change them (user_namespaces(7)): they are the caller's.
            Err(Errno::EPERM) if !is_another => Ok(()),
            set => set,
        };
        set.and_then(|()| nix::unistd::setgid(Gid::from_raw(self.gid)))
            .and_then(|()| nix::unistd::setuid(Uid::from_raw(self.uid)))
            .map_err(Error::of(operation()))?;
        // Who has a keyring may use its keys, whoever they belong to.
        if is_another { leave_session_keyring() } else { Ok(()) }
    }

    /// Gives every privilege up: becomes this user, without capabilities, for good. `root` becomes
    /// the root directory.
    pub(crate) fn give_up_privileges(&self, root: Option<&str>) -> Result<(), Error> {
        let enter = || -> rustix::io::Result<()> {
            let Some(root) = root else { return Ok(()) };
            rustix::process::chroot(root)?;
            rustix::process::chdir("/")
        };
        let operation = "entering a root directory";
        if self.mapped {
            self.assume()?;
            // Who is in another root directory cannot make a user namespace (user_namespaces(7)).
            enter().map_err(Error::of(operation))?;
            // A user namespace begins with all of them.
            empty_bounding_set();
        } else {
            enter().map_err(Error::of(operation))?;
            self.assume()?;
        }
        let none = CapabilitySet::empty();
        let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, none).map_err(Error::of("giving up capabilities"))?;
        set_no_new_privs(true).map_err(Error::of("setting no_new_privs"))
    }
}

/// Goes on with a session keyring of its own, which is empty (keyctl(2)).
fn leave_session_keyring() -> Result<(), Error> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: the keyring has no name.
    let joined =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, null) };
    if joined >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // No keys in this kernel, or a filter of system calls that the program has too.
        Some(libc::ENOSYS | libc::EPERM) => Ok(()),
        _ => Err(Error::of("leaving the session keyring")(error)),
    }
}

/// Takes every capability from what an executable can give this process and its children. What it
/// has already it keeps.
pub(crate) fn empty_bounding_set() {
    for number in 0..u64::BITS {
        // EINVAL: past the kernel's last.
        if remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number))
            == Err(rustix::io::Errno::INVAL)
        {
            return;
        }
    }
}
