//! The launcher: a process of one thread that forks a keeper for every program, or the program
//! itself where that is alone; and the worker's handle of it.

use crate::alone::Watch;
use crate::control::write_line;
use crate::keeper::{self, Request};
use crate::{Error, Identity, KeeperControl, Launch, identity, mounts};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio as Standard};

/// The most descriptors of one request: control, three standard streams, namespace, /dev/shm.
const DESCRIPTORS_MAX: usize = 6;

/// The longest message to a program that is alone, bytes.
const MESSAGE_LEN_MAX: usize = 64 * 1024;

/// What is among the optional descriptors of a request.
const WITH_NETWORK: u8 = 1;
const WITH_SHM: u8 = 2;
/// The program is alone.
const ALONE: u8 = 4;

/// The standard streams of a program.
#[derive(Debug, Clone, Copy)]
pub struct Stdio<'a> {
    /// Standard input.
    pub input: BorrowedFd<'a>,
    /// Standard output.
    pub output: BorrowedFd<'a>,
    /// Standard error.
    pub error: BorrowedFd<'a>,
}

/// A running launcher. It ends when it is dropped; programs that it started go on.
#[derive(Debug)]
pub struct Launcher {
    socket: OwnedFd,
    process: Child,
}

impl Launcher {
    /// Starts a launcher: `command` is to call [`serve`], and to do it before it has a second
    /// thread. It must be in a PID and a mount namespace of the laboratory's own.
    ///
    /// # Errors
    /// What stood in the way; also the launcher's own errors.
    pub fn start(mut command: Command) -> Result<Self, Error> {
        let operation = "starting the launcher of programs";
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(Error::of(operation))?;
        let process = command
            .stdin(Standard::from(theirs))
            .stdout(Standard::null())
            .spawn()
            .map_err(Error::of(operation))?;
        drop(command);
        let launcher = Self { socket, process };
        let mut said = [0; 1024];
        let count = rustix::io::read(&launcher.socket, &mut said).map_err(Error::of(operation))?;
        match std::str::from_utf8(&said[..count]) {
            Ok(READY) => Ok(launcher),
            Ok("") | Err(_) => Err(Error::of(operation)(io::ErrorKind::UnexpectedEof)),
            Ok(why) => Err(Error::of(operation)(io::Error::other(why.to_owned()))),
        }
    }

    /// Starts a program in the network namespace `network` (the laboratory's own without one), with
    /// the mount `shm`, attached nowhere yet, at its /dev/shm (an empty tmpfs without).
    ///
    /// # Errors
    /// If the launcher has ended. What goes wrong later is a [`crate::Word::Failed`].
    pub fn launch(
        &self,
        launch: &Launch,
        stdio: Stdio,
        network: Option<BorrowedFd>,
        shm: Option<BorrowedFd>,
    ) -> io::Result<KeeperControl> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut descriptors = vec![theirs.as_fd(), stdio.input, stdio.output, stdio.error];
        descriptors.extend(network);
        descriptors.extend(shm);
        let with = u8::from(network.is_some()) * WITH_NETWORK + u8::from(shm.is_some()) * WITH_SHM;
        // The keeper reads what to do from its control.
        write_line(&ours, launch)?;
        self.request(with, &[], &descriptors)?;
        Ok(KeeperControl::new(ours))
    }

    /// Starts what the launcher's [`Own::alone`] makes of `message` in the network namespace
    /// `network`, as the only process of a PID namespace and without any file. It costs a fork.
    ///
    /// # Errors
    /// As [`Self::launch`]; `EMSGSIZE`.
    pub fn launch_alone(
        &self,
        message: &[u8],
        stdio: Stdio,
        network: BorrowedFd,
    ) -> io::Result<KeeperControl> {
        let (ours, theirs) = UnixStream::pair()?;
        let descriptors = [theirs.as_fd(), stdio.input, stdio.output, stdio.error, network];
        if message.len() > MESSAGE_LEN_MAX {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        self.request(WITH_NETWORK + ALONE, message, &descriptors)?;
        Ok(KeeperControl::new(ours))
    }

    fn request(&self, with: u8, message: &[u8], descriptors: &[BorrowedFd]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        debug_assert!(fits, "there is room for {DESCRIPTORS_MAX} descriptors");
        let with = [with];
        let parts = [IoSlice::new(&with), IoSlice::new(message)];
        sendmsg(&self.socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const READY: &str = "ready";

/// The launcher's own programs. What they return is their exit code.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// What [`Launch::command`] `None` runs.
    pub kept: fn() -> u8,
    /// Makes a program of the message to [`Launcher::launch_alone`]. It is called in the launcher,
    /// which has read all of it then, and does it once for all its programs to come.
    pub alone: fn(&[u8]) -> Box<dyn FnOnce() -> u8>,
}

/// The launcher's life, on standard input: until the worker closes the other end.
///
/// # Errors
/// What made it impossible to launch anything; the worker has been told.
pub fn serve(identity: &Identity, own: Own) -> Result<(), Error> {
    let stdin = io::stdin();
    let prepared = prepare(identity);
    let said = prepared.as_ref().map_or_else(ToString::to_string, |_| READY.to_owned());
    rustix::io::write(&stdin, said.as_bytes()).map_err(Error::of("answering the worker"))?;
    let descriptors = prepared?;
    let mut watch = Watch::new(stdin.as_fd())?;
    let mut buffer = vec![0; 1 + MESSAGE_LEN_MAX];
    loop {
        if !watch.wait()? {
            continue;
        }
        let request = receive(stdin.as_fd(), &mut buffer);
        let request = request.map_err(Error::of("listening to the worker"))?;
        let Some((request, message)) = request else { return Ok(()) };
        let started = if let Some(message) = message {
            watch.start(request, identity, (own.alone)(message))
        } else {
            keeper::reap();
            keeper::start(request, identity, descriptors, own.kept)
        };
        // Without memory for a process the control closes, and the program has ended.
        if let Err(error) = started {
            eprintln!("{error}");
        }
    }
}

/// Returns the limit on descriptors that programs are to have.
fn prepare(identity: &Identity) -> Result<(u64, u64), Error> {
    keeper::close_the_rest_on_exec();
    unshare(CloneFlags::CLONE_NEWNS).map_err(Error::of("unsharing the mounts"))?;
    mounts::prepare()?;
    if !identity.mapped {
        identity::empty_bounding_set();
    }
    // Two for each program that is alone.
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).map_err(Error::of("reading the descriptor limit"))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .map_err(Error::of("raising the descriptor limit"))?;
    Ok((soft, hard))
}

type Received<'a> = (Request, Option<&'a [u8]>);

/// The next request, and the message to a program that is alone.
fn receive<'a>(socket: BorrowedFd, buffer: &'a mut [u8]) -> io::Result<Option<Received<'a>>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let into = &mut [IoSliceMut::new(buffer)];
        match recvmsg(socket, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    let Some((with, message)) = buffer[..received.bytes].split_first() else { return Ok(None) };
    let mut descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(),
    });
    let mut next = || descriptors.next().ok_or(io::ErrorKind::InvalidData);
    let request = Request {
        control: UnixStream::from(next()?),
        stdio: [next()?, next()?, next()?],
        network: if with & WITH_NETWORK != 0 { Some(next()?) } else { None },
        shm: if with & WITH_SHM != 0 { Some(next()?) } else { None },
    };
    Ok(Some((request, (with & ALONE != 0).then_some(message))))
}
