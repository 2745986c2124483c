//! Socket options, at the boundary where the kernel's units are.
#![expect(unsafe_code, reason = "TCP_INFO and TCP_RTO_MAX_MS have no safe wrapper")]

use crate::Error;
use crate::control::{Control, now_ns};
use socket2::{Domain, Protocol, Socket, Type};
use spec::experiment::Keepalive;
use spec::{CallName, Parameters};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// `TCP_RTO_MAX_MS` (include/uapi/linux/tcp.h, Linux 6.15); not in libc 0.2.
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// `TCP_RTO_MIN_US` (Linux 6.17).
const TCP_RTO_MIN_US: libc::c_int = 45;
/// `TCP_THIN_LINEAR_TIMEOUTS`.
const TCP_THIN_LINEAR_TIMEOUTS: libc::c_int = 16;

/// A TCP socket bound to `local`.
pub(crate) fn bound(local: SocketAddr) -> Result<Socket, Error> {
    let operation = || format!("opening a TCP socket on {local}");
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP))
        .map_err(Error::call(operation()))?;
    socket.set_reuse_address(true).map_err(Error::call(operation()))?;
    socket.bind(&local.into()).map_err(Error::call(operation()))?;
    Ok(socket)
}

/// Sets what the client wants of its connection: every write is a segment of its own, and
/// the options of the experiment.
pub(crate) fn prepare_client(
    socket: &Socket,
    parameters: &Parameters,
    control: &Control,
) -> Result<(), Error> {
    option(control, "TCP_NODELAY=1", || socket.set_tcp_nodelay(true))?;
    if let Some(timeout) = parameters.client.user_timeout {
        option(control, format!("TCP_USER_TIMEOUT={} ms", timeout.as_millis()), || {
            socket.set_tcp_user_timeout(Some(timeout))
        })?;
    }
    if let Some(most) = parameters.client.rto_max {
        let most_ms = most.as_millis() as libc::c_int;
        option(control, format!("TCP_RTO_MAX_MS={most_ms}"), || {
            set_tcp_option(socket, TCP_RTO_MAX_MS, most_ms)
        })?;
    }
    if let Some(least) = parameters.client.rto_min {
        let least_us = least.as_micros() as libc::c_int;
        option(control, format!("TCP_RTO_MIN_US={least_us}"), || {
            set_tcp_option(socket, TCP_RTO_MIN_US, least_us)
        })?;
    }
    if parameters.client.thin_linear_timeouts {
        option(control, "TCP_THIN_LINEAR_TIMEOUTS=1", || {
            set_tcp_option(socket, TCP_THIN_LINEAR_TIMEOUTS, 1)
        })?;
    }
    Ok(())
}

/// Switches keepalive on, with the times that are given; the others are the sysctls'.
pub(crate) fn enable_keepalive(
    socket: &Socket,
    keepalive: &Keepalive,
    control: &Control,
) -> Result<(), Error> {
    let seconds = |time: Duration| time.as_secs() as libc::c_int;
    let times = [
        ("TCP_KEEPIDLE", libc::TCP_KEEPIDLE, keepalive.idle.map(seconds)),
        ("TCP_KEEPINTVL", libc::TCP_KEEPINTVL, keepalive.interval.map(seconds)),
        ("TCP_KEEPCNT", libc::TCP_KEEPCNT, keepalive.probes.map(|count| count as libc::c_int)),
    ];
    for (name, number, value) in times {
        if let Some(value) = value {
            option(control, format!("{name}={value}"), || set_tcp_option(socket, number, value))?;
        }
    }
    // Last, so that the timer is armed once, with the idle time that counts.
    option(control, "SO_KEEPALIVE=1", || socket.set_keepalive(true))
}

/// Sets `SO_LINGER`.
pub(crate) fn set_linger(
    socket: &Socket,
    linger: Duration,
    control: &Control,
) -> Result<(), Error> {
    option(control, format!("SO_LINGER={} s", linger.as_secs()), || socket.set_linger(Some(linger)))
}

pub(crate) fn try_rto_min(least: Duration) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    set_tcp_option(&socket, TCP_RTO_MIN_US, least.as_micros() as libc::c_int)
}

fn option(
    control: &Control,
    detail: impl Into<String>,
    set: impl FnOnce() -> io::Result<()>,
) -> Result<(), Error> {
    let (detail, began) = (detail.into(), now_ns());
    let result = set().map(|()| 0_i64);
    control.call(CallName::SetSockOpt, detail.clone(), began, &result)?;
    result.map(|_| ()).map_err(Error::call(format!("setting {detail}")))
}

/// `tcpi_rto`, microseconds.
pub(crate) fn rto_us(socket: &Socket) -> Result<u32, Error> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `info`, which has that many, is
    // zeroed, and is plain integers.
    let info = unsafe {
        let result = libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        );
        if result != 0 {
            return Err(Error::call("reading TCP_INFO")(io::Error::last_os_error()));
        }
        info.assume_init()
    };
    Ok(info.tcpi_rto)
}

fn set_tcp_option(socket: &Socket, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one int from `value`, and the length says so.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
