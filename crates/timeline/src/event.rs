//! One event: when, who says so, and what.

use crate::flow::Flow;
use crate::segment::Segment;
use serde::{Deserialize, Serialize};
use spec::facts::TcpFacts;
use spec::{CallName, Errno, Facts, FaultAct, Part, SocketOptions};
use std::fmt;
use std::net::IpAddr;

pub use crate::flow::{FlowId, Side};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub at_ns: u64,
    /// Who says so.
    pub source: Source,
    /// The connection that it is about; `None` for what is about none, and for what was recorded
    /// before trials had more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<FlowId>,
    /// What happened.
    pub what: What,
}

/// Who saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The laboratory: what was built, broken, restored.
    Lab,
    /// The client program: what its system calls returned.
    ClientProgram,
    /// The server program.
    ServerProgram,
    /// The tap on the client's interface.
    ClientWire,
    /// The tap on the server's interface.
    ServerWire,
    /// Socket diagnostics in the client's namespace.
    ClientSocket,
    /// Socket diagnostics in the server's namespace.
    ServerSocket,
    /// The program on the third host, where there is one; in files, on the one called proxy.
    #[serde(rename = "proxy-program")]
    ThirdProgram,
    /// The tap on its interface.
    #[serde(rename = "proxy-wire")]
    ThirdWire,
    /// Socket diagnostics in its namespace.
    #[serde(rename = "proxy-socket")]
    ThirdSocket,
    /// The kernel's tracepoints.
    Tracepoint,
    /// The instruments themselves: what they missed, how late they were.
    Instrument,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Lab => "lab",
            Self::ClientProgram => "client-program",
            Self::ServerProgram => "server-program",
            Self::ClientWire => "client-wire",
            Self::ServerWire => "server-wire",
            Self::ClientSocket => "client-socket",
            Self::ServerSocket => "server-socket",
            Self::ThirdProgram => "proxy-program",
            Self::ThirdWire => "proxy-wire",
            Self::ThirdSocket => "proxy-socket",
            Self::Tracepoint => "tracepoint",
            Self::Instrument => "instrument",
        })
    }
}

/// What looks at a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    Program,
    Wire,
    Socket,
}

impl Source {
    /// A host's program.
    pub const fn program(part: Part) -> Self {
        Self::of(Sight::Program, part)
    }

    /// The tap on a host's interface.
    pub const fn wire(part: Part) -> Self {
        Self::of(Sight::Wire, part)
    }

    /// Socket diagnostics in a host's namespace.
    pub const fn socket(part: Part) -> Self {
        Self::of(Sight::Socket, part)
    }

    /// On which host it is; `None`: on none of them.
    pub const fn part(self) -> Option<Part> {
        match self {
            Self::ClientProgram | Self::ClientWire | Self::ClientSocket => Some(Part::Client),
            Self::ServerProgram | Self::ServerWire | Self::ServerSocket => Some(Part::Server),
            Self::ThirdProgram | Self::ThirdWire | Self::ThirdSocket => Some(Part::Third),
            Self::Lab | Self::Tracepoint | Self::Instrument => None,
        }
    }

    /// The same on another host.
    #[must_use]
    pub const fn on(self, part: Part) -> Self {
        match self {
            Self::ClientProgram | Self::ServerProgram | Self::ThirdProgram => Self::program(part),
            Self::ClientWire | Self::ServerWire | Self::ThirdWire => Self::wire(part),
            Self::ClientSocket | Self::ServerSocket | Self::ThirdSocket => Self::socket(part),
            Self::Lab | Self::Tracepoint | Self::Instrument => self,
        }
    }

    const fn of(sight: Sight, part: Part) -> Self {
        match (sight, part) {
            (Sight::Program, Part::Client) => Self::ClientProgram,
            (Sight::Program, Part::Server) => Self::ServerProgram,
            (Sight::Program, Part::Third) => Self::ThirdProgram,
            (Sight::Wire, Part::Client) => Self::ClientWire,
            (Sight::Wire, Part::Server) => Self::ServerWire,
            (Sight::Wire, Part::Third) => Self::ThirdWire,
            (Sight::Socket, Part::Client) => Self::ClientSocket,
            (Sight::Socket, Part::Server) => Self::ServerSocket,
            (Sight::Socket, Part::Third) => Self::ThirdSocket,
        }
    }
}

/// The shortest delay that is told by [`What::Late`], nanoseconds.
pub const LATE_LEAST_NS: u64 = 2_000_000;

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The trial entered a phase.
    Phase(Phase),
    /// The laboratory did one step of a fault, or undid it.
    Fault(FaultStep),
    /// A connection has appeared: the first that is seen of it.
    Flow(Flow),
    /// A program made a system call.
    Call(Call),
    /// A TCP segment passed a tap.
    Segment(Segment),
    /// Another frame passed a tap.
    Frame(Frame),
    /// A socket as socket diagnostics show it.
    Socket(Box<SocketSample>),
    /// The options of a socket, and whose it is.
    Options {
        /// On which host.
        side: Side,
        /// Whose it is.
        owner: Owner,
        /// The options, where they could be read.
        options: Box<SocketOptions>,
    },
    /// What is known of a connection at the last moment before the fault: a prediction starts from
    /// it.
    Facts(Box<Facts>),
    /// A program that is a command has written a line.
    Output {
        /// Where to.
        stream: Stream,
        /// The line, without its end.
        line: String,
    },
    /// It has written more than is kept as lines.
    OutputOmitted {
        /// So many lines are not here.
        lines: u64,
        /// So many bytes are not in the file of its output.
        bytes: u64,
    },
    /// The process that was started for a command has ended.
    Exited {
        /// Its exit code.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
    },
    /// A fault follows what the trial began with, or, with none, what is broken is undone: a program of
    /// the trial has ordered it, or it was planned.
    Ordered {
        /// The fault.
        fault: Option<Box<spec::experiment::Fault>>,
        /// Whether it was planned.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        planned: bool,
    },
    /// Socket diagnostics no longer know the socket: the kernel closed it.
    SocketGone,
    /// A tracepoint fired for one of the trial's sockets.
    Trace(Trace),
    /// An instrument could not be had; the trial goes on without it.
    InstrumentMissing {
        /// Which one.
        instrument: String,
        /// Why not, and what to do about it.
        why: String,
    },
    /// A tap or a trace buffer lost something.
    Lost {
        /// How many packets or events.
        count: u64,
    },
    /// Programs exchanged without a pause: what was seen of that is not all kept.
    Thinned {
        /// How many events.
        events: u64,
        /// How many connections, wholly.
        flows: u64,
    },
    /// The machine was busy: a sleeping thread of the instruments or a peer woke late, or a process that
    /// was killed waited for a processor to end on.
    Late {
        /// By how much, nanoseconds.
        by_ns: u64,
    },
    /// The machine was suspended: `CLOCK_BOOTTIME` went on and `CLOCK_MONOTONIC` did not.
    Suspended {
        /// For how long, nanoseconds.
        for_ns: u64,
    },
    /// The wall clock was set, by which a tap's frames are stamped: the time of those that came
    /// since the tap was last read is not exact.
    WallClockSet {
        /// By how much, nanoseconds.
        by_ns: i64,
    },
    /// A sysctl of the client's namespace was changed.
    Sysctl {
        /// Its name below `net.ipv4`.
        name: String,
        /// Its value from now on.
        value: String,
    },
    /// A host's interface as the kernel shows it.
    Link {
        /// Whose: `client`, `server`, or the switch's or router's port towards one.
        interface: String,
        /// Whether it exists.
        exists: bool,
        /// IFF_UP.
        up: bool,
        /// IFF_LOWER_UP: the carrier.
        carrier: bool,
    },
}

/// A stream that a program writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// The phases of a trial, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The network is being built.
    Building,
    /// Server listening, client connecting.
    Connecting,
    /// Exchanges until the RTO has settled.
    Settling,
    /// Settled; facts are known and the prediction is written down.
    Connected,
    /// The fault is done: waiting for the client to find out.
    Watching,
    /// The client knows, or the deadline has passed: the aftermath is recorded.
    Aftermath,
    /// Everything is taken down.
    Done,
    /// The user stopped it (Ctrl-C).
    Interrupted,
}

/// One step of a fault. The first step of a fault is [`FaultStep::Begin`], whose time is the time
/// of the fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultStep {
    /// About to inject it.
    Begin,
    /// One act, done.
    Done(FaultAct),
    /// How many processes of the program were killed or stopped, and how many were not.
    Processes {
        /// Those that were.
        met: u32,
        /// Those that were not.
        left: u32,
    },
    /// The fault is complete.
    Complete,
    /// The fault begins to be undone, for those that end.
    Restoring,
    /// The fault is over.
    Restored,
    /// The trial ended before the fault was due to; it was not undone.
    Outlasted,
}

/// A system call of a peer, and what it returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Which call.
    pub name: CallName,
    /// What is worth saying about its arguments: `SO_KEEPALIVE=1`.
    pub detail: String,
    /// The value, or the error.
    pub result: Result<i64, Errno>,
    /// When the call began; the event's time is when it returned.
    pub began_ns: u64,
}

/// The process that has a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its number, in the PID namespace of the laboratory.
    pub pid: u32,
    /// Its name (`/proc/PID/comm`).
    pub process: String,
}

/// A frame that is not a TCP segment of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Whether the tapped host sent it.
    pub sent: bool,
    /// What it is.
    pub kind: FrameKind,
}

/// Frames that matter beside TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrameKind {
    /// An ARP request or neighbour solicitation for this address.
    NeighbourRequest(IpAddr),
    /// An ARP reply or neighbour advertisement from this address.
    NeighbourReply(IpAddr),
    /// ICMP or `ICMPv6`.
    Icmp {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
        /// Who sent it.
        from: IpAddr,
        /// For an error: whether the quoted packet is the connection's.
        about_connection: bool,
    },
    /// Anything else, with its `EtherType`.
    Other {
        /// The `EtherType`.
        ethertype: u16,
    },
}

/// A TCP socket as `sock_diag(7)` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketSample {
    /// RFC 9293 state, as the kernel names it: `ESTABLISHED`, `CLOSE_WAIT`.
    pub state: String,
    /// `idiag_timer`: 0 none, 1 retransmission, 2 keepalive, 3 time-wait, 4 zero-window probe.
    pub timer: u8,
    /// `idiag_retrans`: retransmissions or probes of that timer.
    pub timer_count: u8,
    /// `idiag_expires`: milliseconds until the timer fires.
    pub timer_expires_ms: u32,
    /// `idiag_rqueue`: bytes received and not read.
    pub receive_queue: u32,
    /// `idiag_wqueue`: bytes written and not acknowledged.
    pub send_queue: u32,
    /// `idiag_inode`: 0 where no process has it.
    #[serde(default)]
    pub inode: u32,
    /// For how long the look lasted, nanoseconds: the kernel looked within so much of its time stamp.
    #[serde(default)]
    pub within_ns: u64,
    /// `struct tcp_info`, the fields that matter; `None` for sockets that have none any more.
    pub info: Option<TcpInfo>,
}

/// The fields of `struct tcp_info` (include/uapi/linux/tcp.h) that matter here, with its units.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the kernel's own, without `tcpi_`")]
pub struct TcpInfo {
    pub retransmits: u8,
    pub probes: u8,
    pub backoff: u8,
    pub options: u8,
    pub rto_us: u32,
    pub snd_mss: u32,
    pub unacked: u32,
    pub lost: u32,
    pub retrans: u32,
    pub last_data_sent_ms: u32,
    pub last_data_recv_ms: u32,
    pub last_ack_recv_ms: u32,
    pub rtt_us: u32,
    pub rttvar_us: u32,
    pub snd_cwnd: u32,
    pub total_retrans: u32,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub bytes_retrans: u64,
    pub segs_out: u32,
    pub segs_in: u32,
    pub notsent_bytes: u32,
    pub min_rtt_us: u32,
    pub snd_wnd: u32,
    pub total_rto: u16,
    #[serde(default)]
    pub total_rto_recoveries: u16,
    #[serde(default)]
    pub total_rto_time_ms: u32,
}

impl TcpInfo {
    /// Whether the kernel still has something to send, or has sent something again that is not acknowledged.
    pub const fn has_unsent(&self) -> bool {
        self.notsent_bytes > 0 || self.retransmits > 0
    }
}

/// A kernel tracepoint, for one of the trial's sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trace {
    /// `sock:inet_sock_set_state`.
    SetState {
        /// Whose socket.
        side: Side,
        /// The state before.
        old: String,
        /// The state after.
        new: String,
    },
    /// `sock:inet_sk_error_report`, with an error (it also fires with 0).
    ErrorReport {
        /// Whose socket.
        side: Side,
        /// `sk_err`.
        error: Errno,
    },
    /// `tcp:tcp_retransmit_skb`.
    Retransmit {
        /// Whose socket.
        side: Side,
        /// What sending it gave: 0, or an error number. Kernels before 6.13 do not say.
        err: Option<i32>,
    },
    /// `tcp:tcp_send_reset`.
    SendReset {
        /// Whose socket.
        side: Side,
    },
    /// `tcp:tcp_receive_reset`.
    ReceiveReset {
        /// Whose socket.
        side: Side,
    },
    /// `timer:timer_start` of one of the socket's timers.
    TimerStart {
        /// Whose socket.
        side: Side,
        /// Which timer.
        timer: Timer,
        /// `jiffies` at arming, the low 32 bits at least.
        now: u64,
        /// The jiffy asked for.
        expires: u64,
        /// The jiffy of the wheel's slot, if the kernel says (`bucket_expiry`, 5.x and later).
        bucket: Option<u64>,
    },
    /// `timer:timer_cancel`.
    TimerCancel {
        /// Whose socket.
        side: Side,
        /// Which timer.
        timer: Timer,
    },
    /// `timer:timer_expire_entry`.
    TimerExpire {
        /// Whose socket.
        side: Side,
        /// Which timer.
        timer: Timer,
        /// `jiffies` at expiry.
        now: u64,
    },
}

impl Trace {
    /// Whose socket it is about.
    pub const fn side(&self) -> Side {
        match *self {
            Self::SetState { side, .. }
            | Self::ErrorReport { side, .. }
            | Self::Retransmit { side, .. }
            | Self::SendReset { side }
            | Self::ReceiveReset { side }
            | Self::TimerStart { side, .. }
            | Self::TimerCancel { side, .. }
            | Self::TimerExpire { side, .. } => side,
        }
    }
}

/// The timers of a TCP socket, by their kernel functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Timer {
    /// `tcp_write_timer`: retransmission, tail loss probe, zero-window probe.
    Write,
    /// `tcp_keepalive_timer`: keepalive, SYN-ACK, FIN_WAIT2.
    Keepalive,
    /// `tcp_delack_timer`.
    DelayedAck,
}

impl Event {
    /// An event about no connection, or about whichever it will turn out to be.
    pub fn new(at_ns: u64, source: Source, what: What) -> Self {
        Self { at_ns, source, flow: None, what }
    }

    /// An event of the laboratory itself.
    pub fn lab(at_ns: u64, what: What) -> Self {
        Self::new(at_ns, Source::Lab, what)
    }

    /// The same, about this connection.
    #[must_use]
    pub fn of(self, flow: FlowId) -> Self {
        Self { flow: Some(flow), ..self }
    }
}

impl SocketSample {
    /// What a prediction may start from: the sample, taken at `sampled_at_ns` of `CLOCK_MONOTONIC`,
    /// and when the first zero-window probe was seen, if one was. `None` where the kernel gave no
    /// `struct tcp_info`.
    pub fn facts(&self, sampled_at_ns: u64, window_probed_at_ns: Option<u64>) -> Option<TcpFacts> {
        let info = self.info.as_ref()?;
        Some(TcpFacts {
            rto_us: info.rto_us,
            srtt_us: info.rtt_us,
            rttvar_us: info.rttvar_us,
            snd_mss: info.snd_mss,
            snd_cwnd: info.snd_cwnd,
            options: info.options,
            sampled_at_ns,
            last_data_recv_ms: info.last_data_recv_ms,
            last_ack_recv_ms: info.last_ack_recv_ms,
            timer: self.timer,
            timer_expires_ms: self.timer_expires_ms,
            backoff: info.backoff,
            probes: info.probes,
            snd_wnd: info.snd_wnd,
            window_probed_at_ns,
            state: self.state.parse().ok(),
            retransmits: info.retransmits,
            unacked: info.unacked,
            notsent_bytes: info.notsent_bytes,
            acknowledged: None,
            last_data_sent_ms: info.last_data_sent_ms,
            timer_count: self.timer_count,
            options_set: None,
            sampled_within_ns: self.within_ns,
            inode: Some(self.inode),
            retrans: info.retrans,
            total_retrans: Some(info.total_retrans),
            min_rtt_us: Some(info.min_rtt_us),
            rto_recoveries: info.total_rto_recoveries,
            rto_time_ms: info.total_rto_time_ms,
        })
    }
}
