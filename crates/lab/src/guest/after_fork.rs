//! System calls in a form that may be used between a fork and an exec: no
//! allocation, no locks, no panics.
#![expect(unsafe_code, reason = "mount_setattr, capset and the like have no safe wrapper")]

use std::ffi::CStr;
use std::os::fd::RawFd;
use std::ptr;

use nix::errno::Errno;

use super::keeper::{Step, Stepped};

pub(super) fn errno() -> i32 {
    Errno::last_raw()
}

pub(super) fn check(step: Step, result: libc::c_long) -> Stepped<libc::c_long> {
    if result < 0 {
        return Err((step, errno()));
    }
    Ok(result)
}

/// Closes every descriptor from 3 up but these.
pub(super) fn keep_only<const N: usize>(mut kept: [RawFd; N]) {
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            // SAFETY: closes descriptors of which this process's code, all of
            // it below `Keeper::keep`, knows nothing.
            unsafe { libc::close_range(first as libc::c_uint, (fd - 1) as libc::c_uint, 0) };
        }
        first = first.max(fd + 1);
    }
    // SAFETY: as above.
    unsafe { libc::close_range(first as libc::c_uint, libc::c_uint::MAX, 0) };
}

pub(super) fn mount(
    step: Step,
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    data: Option<&CStr>,
) -> Stepped<()> {
    let or_null = |string: Option<&CStr>| string.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: each pointer is null or a valid C string.
    let result = unsafe {
        libc::mount(or_null(source), target.as_ptr(), or_null(kind), flags, or_null(data).cast())
    };
    check(step, result.into())?;
    Ok(())
}

/// A copy of the mount at `path` and below, attached nowhere.
pub(super) fn detached_copy(step: Step, path: &CStr) -> Stepped<RawFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let flags =
        OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: a plain system call with a valid C string.
    let fd = check(step, unsafe {
        libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags)
    })?;
    Ok(fd as RawFd)
}

/// Attaches what [`detached_copy`] took, and closes it.
pub(super) fn attach(step: Step, tree: RawFd, path: &CStr) -> Stepped<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
    // SAFETY: plain system calls with valid C strings and a descriptor of ours.
    unsafe {
        check(
            step,
            libc::syscall(
                libc::SYS_move_mount,
                tree,
                c"".as_ptr(),
                libc::AT_FDCWD,
                path.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH,
            ),
        )?;
        libc::close(tree);
    }
    Ok(())
}

pub(super) fn mount_attributes(step: Step, path: &CStr, set: u64, flags: i32) -> Stepped<()> {
    // struct mount_attr of linux/mount.h: set, clear, propagation, user
    // namespace.
    let attributes: [u64; 4] = [set, 0, 0, 0];
    // SAFETY: a plain system call with a valid C string and a structure of the
    // size given.
    check(step, unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    })?;
    Ok(())
}

/// Writes a file in one go: a new one, or one of the kernel's.
pub(super) fn write_file(step: Step, path: &CStr, content: &[u8], create: bool) -> Stepped<()> {
    let flags =
        libc::O_WRONLY | libc::O_CLOEXEC | if create { libc::O_CREAT | libc::O_EXCL } else { 0 };
    // SAFETY: plain system calls with a valid C string and a slice's own
    // bounds.
    unsafe {
        let fd = check(step, libc::open(path.as_ptr(), flags, 0o600).into())? as RawFd;
        let mut rest = content;
        while !rest.is_empty() {
            let written =
                check(step, libc::write(fd, rest.as_ptr().cast(), rest.len()) as libc::c_long)?;
            rest = rest.get(written as usize..).unwrap_or_default();
        }
        libc::close(fd);
    }
    Ok(())
}

/// The decimal number in a file, if there is one.
pub(super) fn read_code(path: &CStr) -> Option<u8> {
    let mut text = [0_u8; 4];
    // SAFETY: plain system calls with a valid C string and a local buffer.
    let length = unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return None;
        }
        let length = libc::read(fd, text.as_mut_ptr().cast(), text.len());
        libc::close(fd);
        usize::try_from(length).ok()?
    };
    let mut code: u8 = 0;
    let digits = text.get(..length)?.iter().take_while(|byte| byte.is_ascii_digit());
    let mut any = false;
    for digit in digits {
        code = code.checked_mul(10)?.checked_add(digit - b'0')?;
        any = true;
    }
    any.then_some(code)
}

/// Leaves root nothing but its power over files, which the read-only mounts
/// then take away again: without the rest it can neither change a mount, nor
/// load anything, nor look into a process that has more.
pub(super) fn drop_capabilities() -> Stepped<()> {
    const CHOWN: u32 = 0;
    const FSETID: u32 = 4;
    const KEPT: u32 = (1 << (FSETID + 1)) - (1 << CHOWN); // up to FSETID: DAC_*, FOWNER
    const LAST: libc::c_ulong = 63;
    const VERSION_3: u32 = 0x2008_0522;
    // struct __user_cap_header_struct and two __user_cap_data_struct
    // (effective, permitted, inheritable) of linux/capability.h.
    let header: [u32; 2] = [VERSION_3, 0];
    let mut held: [u32; 6] = [0; 6];
    // SAFETY: plain system calls on local arrays of the sizes that this
    // version of the interface has.
    unsafe {
        for capability in (0..=LAST).filter(|number| *number > libc::c_ulong::from(FSETID)) {
            // Fails for numbers that this kernel does not have, and for a
            // process that has no right to it, which has nothing to drop.
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        check(
            Step::Capabilities,
            libc::syscall(libc::SYS_capget, header.as_ptr(), held.as_mut_ptr()),
        )?;
        let kept: [u32; 6] = [held[0] & KEPT, held[1] & KEPT, 0, 0, 0, 0];
        check(Step::Capabilities, libc::syscall(libc::SYS_capset, header.as_ptr(), kept.as_ptr()))?;
        check(Step::Capabilities, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
    }
    Ok(())
}
