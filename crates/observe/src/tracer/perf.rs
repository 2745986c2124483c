//! Tracepoints through `perf_event_open(2)`: bound to descriptors, so that nothing outlives the
//! process.

#![expect(unsafe_code, reason = "no safe binding opens perf events or maps their ring buffers")]

use super::Missing;
use super::tracepoints::{Kind, Reader};
use crate::Error;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use perf_event_open_sys::{bindings, ioctls};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// All buffers together, bytes; each processor has at least [`BUFFER_MIN`], at most
/// [`BUFFER_MAX`].
const BUFFERS: usize = 16 << 20;
const BUFFER_MIN: usize = 64 << 10;
const BUFFER_MAX: usize = 1 << 20;

/// A ring buffer for each processor, shared by that processor's events.
#[derive(Debug)]
pub(super) struct PerfEvents {
    epoll: Epoll,
    rings: Vec<Ring>,
    /// Held open: an event ends with its descriptor.
    _events: Vec<OwnedFd>,
}

impl PerfEvents {
    /// Opens the tracepoints on every processor. Those that this kernel refuses are reported in
    /// `missing`.
    pub(super) fn open(readers: &[Reader], missing: &mut Vec<Missing>) -> Result<Self, Error> {
        let processors = online_processors();
        let buffer_len = (BUFFERS / processors.len().max(1))
            .clamp(BUFFER_MIN, BUFFER_MAX)
            .next_power_of_two()
            .min(BUFFER_MAX);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| Error::system("making an epoll descriptor", errno))?;
        let mut rings: Vec<Ring> = Vec::new();
        let mut events = Vec::new();
        for processor in &processors {
            let mut owner: Option<OwnedFd> = None;
            for reader in readers {
                let event = open_event(reader, *processor)?;
                if let Err(why) = set_filter(&event, reader.kind) {
                    let instrument = reader.kind.path();
                    if !missing.iter().any(|missing| missing.instrument == instrument) {
                        missing.push(Missing { instrument: instrument.into(), why });
                    }
                    continue;
                }
                match &owner {
                    None => {
                        rings.push(Ring::map(&event, buffer_len)?);
                        epoll
                            .add(&event, EpollEvent::new(EpollFlags::EPOLLIN, 0))
                            .map_err(|errno| Error::system("watching a perf event", errno))?;
                        owner = Some(event);
                    }
                    Some(owner) => {
                        // SAFETY: both descriptors are open perf events.
                        let result =
                            unsafe { ioctls::SET_OUTPUT(event.as_raw_fd(), owner.as_raw_fd()) };
                        Errno::result(result).map_err(|errno| {
                            Error::system("joining a perf event's buffer", errno)
                        })?;
                        events.push(event);
                    }
                }
            }
            events.extend(owner);
        }
        for event in &events {
            // SAFETY: the descriptor is an open perf event.
            let result = unsafe { ioctls::ENABLE(event.as_raw_fd(), 0) };
            Errno::result(result).map_err(|errno| Error::system("enabling a perf event", errno))?;
        }
        Ok(Self { epoll, rings, _events: events })
    }

    /// Hands over every record that is waiting with its time, processor by processor; returns how
    /// many were lost.
    pub(super) fn drain(&mut self, sink: &mut dyn FnMut(u64, &[u8])) -> u64 {
        // Takes the readiness off the epoll descriptor: the buffers themselves say what there is.
        let _ = self.epoll.wait(&mut [EpollEvent::empty(); 16], 0u8);
        self.rings.iter_mut().map(|ring| ring.drain(sink)).sum()
    }
}

impl AsFd for PerfEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// `/sys/devices/system/cpu/online`: `0-3,8`.
fn online_processors() -> Vec<i32> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let listed: Vec<i32> = text
        .trim()
        .split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse::<i32>().ok()?..=last.parse::<i32>().ok()?)
        })
        .flatten()
        .collect();
    if listed.is_empty() { vec![0] } else { listed }
}

fn open_event(reader: &Reader, processor: i32) -> Result<OwnedFd, Error> {
    let mut attributes = bindings::perf_event_attr {
        type_: bindings::PERF_TYPE_TRACEPOINT,
        size: size_of::<bindings::perf_event_attr>() as u32,
        config: u64::from(reader.id),
        sample_type: u64::from(bindings::PERF_SAMPLE_TIME | bindings::PERF_SAMPLE_RAW),
        clockid: libc::CLOCK_MONOTONIC,
        ..Default::default()
    };
    attributes.__bindgen_anon_1.sample_period = 1;
    attributes.set_disabled(1);
    attributes.set_use_clockid(1);
    // Events that are not urgent wake nobody before half of the buffer is full.
    attributes.__bindgen_anon_2.wakeup_events = u32::from(reader.kind.is_urgent());
    let flags = libc::c_ulong::from(bindings::PERF_FLAG_FD_CLOEXEC);
    // SAFETY: `attributes` is a complete attribute structure that says its own size, and asks for
    // samples into a ring buffer only.
    let fd = unsafe {
        perf_event_open_sys::perf_event_open(&raw mut attributes, -1, processor, -1, flags)
    };
    let fd = Errno::result(fd).map_err(|errno| match errno {
        Errno::EACCES | Errno::EPERM => Error::TracingForbidden { source: errno.into() },
        Errno::ENOSYS => Error::NoPerf { source: errno.into() },
        Errno::EMFILE | Errno::ENFILE => Error::TooManyFiles {
            instrument: "the tracepoints, which take nine descriptors for each processor",
            source: errno.into(),
        },
        _ => Error::system(
            format!("opening tracepoint {} on processor {processor}", reader.kind.path()),
            errno,
        ),
    })?;
    // SAFETY: the kernel just returned it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets the first filter the kernel understands.
fn set_filter(event: &OwnedFd, kind: Kind) -> Result<(), String> {
    let filters = kind.filters();
    let mut refused = None;
    for filter in &filters {
        let filter = CString::new(filter.as_str()).expect("filters have no NUL");
        // SAFETY: the descriptor is an open perf event; the kernel copies the string, which is
        // terminated and lives across the call, and does not write to it.
        let result = unsafe { ioctls::SET_FILTER(event.as_raw_fd(), filter.as_ptr().cast_mut()) };
        match Errno::result(result) {
            Ok(_) => return Ok(()),
            Err(errno) => refused = Some(format!("the kernel refuses its filter: {errno}")),
        }
    }
    refused.map_or(Ok(()), Err)
}

/// A mapped ring buffer (`struct perf_event_mmap_page`, include/uapi/linux/perf_event.h).
#[derive(Debug)]
struct Ring {
    page: NonNull<bindings::perf_event_mmap_page>,
    mapped_len: usize,
    data: NonNull<u8>,
    data_len: usize,
    scratch: Vec<u8>,
}

// SAFETY: the mapping belongs to the process, not to a thread; `&mut self` keeps the one reader
// that the buffer may have.
unsafe impl Send for Ring {}

impl Ring {
    fn map(event: &OwnedFd, data_len: usize) -> Result<Self, Error> {
        let page_len = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .and_then(|len| usize::try_from(len).ok())
            .unwrap_or(4096);
        let mapped_len = page_len + data_len;
        // SAFETY: a fresh mapping at an address of the kernel's choice, of an open perf event.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped_len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            let errno = Errno::last();
            return Err(match errno {
                Errno::EPERM => Error::LockedMemory { len: mapped_len, source: errno.into() },
                _ => Error::system(format!("mapping a trace buffer of {mapped_len} bytes"), errno),
            });
        }
        let page = NonNull::new(address).expect("the kernel maps nothing at 0").cast::<u8>();
        // SAFETY: the data follow the first page within the mapping.
        let data = unsafe { page.add(page_len) };
        Ok(Self { page: page.cast(), mapped_len, data, data_len, scratch: Vec::new() })
    }

    /// Copies out everything between the reader's position and the kernel's.
    fn drain(&mut self, sink: &mut dyn FnMut(u64, &[u8])) -> u64 {
        // SAFETY: the page is mapped for as long as `self` lives; the kernel writes `data_head`,
        // which is aligned, and this reader alone writes `data_tail`.
        let (head, tail) = unsafe {
            let page = self.page.as_ptr();
            (
                AtomicU64::from_ptr(&raw mut (*page).data_head),
                AtomicU64::from_ptr(&raw mut (*page).data_tail),
            )
        };
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        let mut lost = 0;
        while at < end {
            let header = self.copy(at, size_of::<bindings::perf_event_header>());
            let kind = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
            let len = u16::from_ne_bytes([header[6], header[7]]);
            if len == 0 {
                break;
            }
            let record = self.copy(at, usize::from(len));
            match kind {
                bindings::PERF_RECORD_SAMPLE => {
                    if let Some((at_ns, bytes)) = sample(record) {
                        sink(at_ns, bytes);
                    }
                }
                bindings::PERF_RECORD_LOST => lost += lost_count(record),
                _ => {}
            }
            at += u64::from(len);
        }
        tail.store(end, Ordering::Release);
        lost
    }

    /// A record's bytes, put together where it wraps.
    fn copy(&mut self, at: u64, len: usize) -> &[u8] {
        let len = len.min(self.data_len);
        let begin = (at % self.data_len as u64) as usize;
        let first = len.min(self.data_len - begin);
        self.scratch.clear();
        // SAFETY: both pieces lie within the mapped data; the kernel does not write between the
        // reader's position and `data_head`, where they are.
        unsafe {
            let begin = self.data.add(begin).as_ptr();
            self.scratch.extend_from_slice(std::slice::from_raw_parts(begin, first));
            let rest = std::slice::from_raw_parts(self.data.as_ptr(), len - first);
            self.scratch.extend_from_slice(rest);
        }
        &self.scratch
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped, and nothing refers to it any more.
        unsafe { libc::munmap(self.page.as_ptr().cast(), self.mapped_len) };
    }
}

/// `PERF_RECORD_SAMPLE` with `PERF_SAMPLE_TIME | PERF_SAMPLE_RAW`: header, time, size, bytes.
fn sample(record: &[u8]) -> Option<(u64, &[u8])> {
    let at_ns = u64::from_ne_bytes(*record.get(8..)?.first_chunk()?);
    let len = u32::from_ne_bytes(*record.get(16..)?.first_chunk()?) as usize;
    Some((at_ns, record.get(20..20 + len)?))
}

/// `PERF_RECORD_LOST`: header, id, count.
fn lost_count(record: &[u8]) -> u64 {
    record.get(16..).and_then(|rest| rest.first_chunk()).map_or(0, |n| u64::from_ne_bytes(*n))
}
