//! Tracepoints through small BPF programs: bound to descriptors, so that nothing outlives the
//! process, and one descriptor for each tracepoint, however many processors there are.
//!
//! Sampling by `perf_event_open(2)` alone would do, and was used first. On Linux 6.18.44 in a
//! virtual machine it was seen to lose every record made while one processor's idle task or one
//! particular thread was interrupted, for minutes, saying nothing and counting on; and timers
//! expire in idle tasks. Programs on the same tracepoints missed none of the idle task's, and
//! about one record in 200: those made while that thread was interrupted. The tracefs instance
//! missed none. Hence no reader may take the absence of a record for the absence of an event.
//!
//! Nothing counts those losses. They happen before a program runs, where `perf_trace_buf_alloc`
//! (kernel/trace/trace_event_perf.c) takes the recursion context of perf's own events and finds it
//! taken; `recursion_misses` of `struct bpf_prog_info` counts what `trace_call_bpf` skips after
//! that, and was 0 where a record was missing.

#![expect(unsafe_code, reason = "no safe binding loads programs or maps their ring buffers")]

mod program;

use super::tracepoints::{Kind, Reader};
use crate::Error;
use nix::errno::Errno;
use perf_event_open_sys::{bindings, ioctls};
use program::Plan;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The ring buffer that all programs share, bytes: some 40,000 records.
const RING_LEN: u32 = 4 << 20;

/// Programs on tracepoints, and the ring buffer that they write to.
#[derive(Debug)]
pub(super) struct Programs {
    ring: Ring,
    losses: Losses,
    attached: Vec<(Kind, Attached)>,
    processor: i32,
}

/// A program stays attached for as long as its perf event is open.
#[derive(Debug)]
struct Attached {
    _event: OwnedFd,
}

impl Programs {
    /// Attaches a program to each tracepoint.
    pub(super) fn open(readers: &[Reader]) -> Result<Self, Error> {
        let processor = first_processor();
        // A kernel without perf events says so here, before anything else is asked of it.
        for reader in readers.iter().take(1) {
            open_event(reader, processor)?;
        }
        let ring = Ring::create()?;
        let losses = Losses::create()?;
        let mut programs = Self { ring, losses, attached: Vec::new(), processor };
        for reader in readers {
            programs.attach(reader, &[])?;
        }
        Ok(programs)
    }

    /// From now on, only the timers with these functions. For a moment there are both programs,
    /// and each record twice: a tracepoint that nobody watches takes a grace period to come back.
    pub(super) fn restrict(&mut self, readers: &[Reader], functions: &[u64]) -> Result<(), Error> {
        for reader in readers.iter().filter(|reader| reader.function_offset().is_some()) {
            self.attach(reader, functions)?;
            let before = self.attached.iter().position(|(kind, _)| *kind == reader.kind);
            before.map(|index| self.attached.remove(index));
        }
        Ok(())
    }

    fn attach(&mut self, reader: &Reader, functions: &[u64]) -> Result<(), Error> {
        let only = reader.function_offset().filter(|_| !functions.is_empty());
        let program = load(Plan {
            id: reader.id,
            record_len: reader.record_len,
            only: only.map(|offset| (offset, functions)),
            is_urgent: reader.kind.is_urgent(),
            ring: self.ring.map.as_raw_fd(),
            ring_len: RING_LEN,
            losses: self.losses.map.as_raw_fd(),
        })?;
        let event = open_event(reader, self.processor)?;
        let failed =
            |errno| Error::system(format!("attaching a program to {}", reader.kind.path()), errno);
        // SAFETY: both descriptors are open; the kernel takes its own reference to the program.
        let result = unsafe { ioctls::SET_BPF(event.as_raw_fd(), program.as_raw_fd() as u32) };
        Errno::result(result).map_err(failed)?;
        // SAFETY: the descriptor is an open perf event.
        let result = unsafe { ioctls::ENABLE(event.as_raw_fd(), 0) };
        Errno::result(result).map_err(failed)?;
        self.attached.push((reader.kind, Attached { _event: event }));
        Ok(())
    }

    /// Hands over every record that is waiting with its time; returns how many were lost.
    pub(super) fn drain(&mut self, sink: &mut dyn FnMut(u64, &[u8])) -> Result<u64, Error> {
        self.ring.drain(sink);
        self.losses.take()
    }
}

impl AsFd for Programs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.map.as_fd()
    }
}

/// A program runs on every processor, whichever its event is opened on.
fn first_processor() -> i32 {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let digits = online.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

fn open_event(reader: &Reader, processor: i32) -> Result<OwnedFd, Error> {
    let mut attributes = bindings::perf_event_attr {
        type_: bindings::PERF_TYPE_TRACEPOINT,
        size: size_of::<bindings::perf_event_attr>() as u32,
        config: u64::from(reader.id),
        ..Default::default()
    };
    attributes.set_disabled(1);
    let flags = libc::c_ulong::from(bindings::PERF_FLAG_FD_CLOEXEC);
    // SAFETY: `attributes` is a complete attribute structure that says its own size, and asks for
    // a counter only.
    let fd = unsafe {
        perf_event_open_sys::perf_event_open(&raw mut attributes, -1, processor, -1, flags)
    };
    let fd = Errno::result(fd).map_err(|errno| match errno {
        Errno::EACCES | Errno::EPERM => Error::TracingForbidden { source: errno.into() },
        Errno::ENOSYS => Error::NoPerf { source: errno.into() },
        Errno::EMFILE | Errno::ENFILE => {
            Error::TooManyFiles { instrument: "the tracepoints", source: errno.into() }
        }
        _ => Error::system(format!("opening tracepoint {}", reader.kind.path()), errno),
    })?;
    // SAFETY: the kernel just returned it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

// The commands of bpf(2) and what they take (`union bpf_attr`, include/uapi/linux/bpf.h); the
// kernel takes what is not given as 0.
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const PROGRAM_LOAD: libc::c_int = 5;
const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_RINGBUF: u32 = 27;
const PROGRAM_TYPE_TRACEPOINT: u32 = 5;

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_len: u32,
    value_len: u32,
    entries: u32,
}

#[repr(C)]
struct MapLookup {
    map: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
}

/// # Safety
/// `attributes` must be what the command takes, and what it points to must live across the call
/// and have the length that the command gives it.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> Result<libc::c_int, Errno> {
    // SAFETY: `attributes` has the length given; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    Errno::result(result).map(|value| value as libc::c_int)
}

fn refused(operation: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| match errno {
        Errno::EPERM | Errno::EACCES => Error::TracingForbidden { source: errno.into() },
        Errno::ENOSYS | Errno::EINVAL => Error::NoBpf { operation, source: errno.into() },
        Errno::EMFILE | Errno::ENFILE => {
            Error::TooManyFiles { instrument: "the tracepoints", source: errno.into() }
        }
        _ => Error::system(operation, errno),
    }
}

fn create_map(attributes: &MapCreate, operation: &'static str) -> Result<OwnedFd, Error> {
    // SAFETY: MAP_CREATE takes this structure, which points to nothing.
    let fd = unsafe { bpf(MAP_CREATE, attributes) }.map_err(refused(operation))?;
    // SAFETY: the kernel just returned it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn load(plan: Plan<'_>) -> Result<OwnedFd, Error> {
    let instructions = program::assemble(plan);
    let attributes = ProgramLoad {
        kind: PROGRAM_TYPE_TRACEPOINT,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        licence: c"MIT OR Apache-2.0".as_ptr() as u64,
    };
    // SAFETY: PROGRAM_LOAD takes this structure; the instructions are as many as it says, the
    // licence is terminated, and both live across the call, which only reads them.
    let fd = unsafe { bpf(PROGRAM_LOAD, &attributes) };
    let fd = fd.map_err(refused("loading a program for a tracepoint"))?;
    // SAFETY: the kernel just returned it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How many records found no room, as the programs count them.
#[derive(Debug)]
struct Losses {
    map: OwnedFd,
    told: u64,
}

impl Losses {
    fn create() -> Result<Self, Error> {
        let attributes = MapCreate { kind: MAP_TYPE_ARRAY, key_len: 4, value_len: 8, entries: 1 };
        let map = create_map(&attributes, "making a counter for the tracepoints' programs")?;
        Ok(Self { map, told: 0 })
    }

    /// Those since the last call.
    fn take(&mut self) -> Result<u64, Error> {
        let key = 0_u32;
        let mut total = 0_u64;
        let attributes = MapLookup {
            map: self.map.as_raw_fd() as u32,
            _padding: 0,
            key: &raw const key as u64,
            value: &raw mut total as u64,
            flags: 0,
        };
        // SAFETY: MAP_LOOKUP takes this structure; key and value have the lengths that the map
        // was made with, and live across the call.
        unsafe { bpf(MAP_LOOKUP, &attributes) }
            .map_err(|errno| Error::system("reading how many trace records were lost", errno))?;
        let lost = total - self.told;
        self.told = total;
        Ok(lost)
    }
}

/// A BPF ring buffer (kernel/bpf/ringbuf.c): one page with the reader's position, one with the
/// writer's, then the data, twice in a row, so that no record wraps.
#[derive(Debug)]
struct Ring {
    map: OwnedFd,
    reader: Mapping,
    writer: Mapping,
    page_len: usize,
}

/// The header of a record: its length with two flags in it, and something of the kernel's.
const HEADER_LEN: u64 = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

impl Ring {
    fn create() -> Result<Self, Error> {
        let attributes =
            MapCreate { kind: MAP_TYPE_RINGBUF, key_len: 0, value_len: 0, entries: RING_LEN };
        let map = create_map(&attributes, "making a ring buffer for the tracepoints")?;
        let page_len = page_len();
        let reader = Mapping::new(&map, page_len, 0, libc::PROT_READ | libc::PROT_WRITE)?;
        let writer_len = page_len + 2 * RING_LEN as usize;
        let writer = Mapping::new(&map, writer_len, page_len, libc::PROT_READ)?;
        Ok(Self { map, reader, writer, page_len })
    }

    /// Hands over every complete record, and makes room for others.
    fn drain(&mut self, sink: &mut dyn FnMut(u64, &[u8])) {
        // SAFETY: both positions are the first word of their page, which is mapped for as long as
        // `self` lives and aligned; this reader alone writes its own, the kernel the other.
        let (read, written) = unsafe {
            (
                AtomicU64::from_ptr(self.reader.address.as_ptr().cast()),
                AtomicU64::from_ptr(self.writer.address.as_ptr().cast()),
            )
        };
        let mut at = read.load(Ordering::Relaxed);
        while at < written.load(Ordering::Acquire) {
            let begin = self.page_len + (at % u64::from(RING_LEN)) as usize;
            // SAFETY: the header lies before the writer's position, hence within the data, which
            // are mapped and aligned to eight bytes; the kernel clears the flag when it has
            // written the record, and nothing else of it afterwards.
            let header =
                unsafe { AtomicU32::from_ptr(self.writer.address.add(begin).as_ptr().cast()) };
            let header = header.load(Ordering::Acquire);
            if header & BUSY != 0 {
                break;
            }
            let len = header & !DISCARDED;
            if header & DISCARDED == 0 {
                // SAFETY: the record is complete and lies within the data, which are mapped twice
                // in a row; the kernel does not write to it before the reader's position passes.
                let record = unsafe {
                    let data = self.writer.address.add(begin + HEADER_LEN as usize);
                    std::slice::from_raw_parts(data.as_ptr(), len as usize)
                };
                if let Some((time, record)) = record.split_first_chunk::<{ program::TIME_LEN }>() {
                    sink(u64::from_ne_bytes(*time), record);
                }
            }
            at += (HEADER_LEN + u64::from(len)).next_multiple_of(8);
            read.store(at, Ordering::Release);
        }
    }
}

/// Memory shared with the kernel.
#[derive(Debug)]
struct Mapping {
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is used through `&mut` only.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(map: &OwnedFd, len: usize, offset: usize, access: libc::c_int) -> Result<Self, Error> {
        // SAFETY: a fresh mapping at an address of the kernel's choice, of an open map.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                access,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if address == libc::MAP_FAILED {
            let operation = format!("mapping {len} bytes of a trace buffer");
            return Err(Error::system(operation, Errno::last()));
        }
        let address = NonNull::new(address.cast()).expect("the kernel maps nothing at 0");
        Ok(Self { address, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped, and nothing refers to it any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.len) };
    }
}

fn page_len() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|len| usize::try_from(len).ok())
        .unwrap_or(4096)
}
