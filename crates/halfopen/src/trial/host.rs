//! One of the two hosts as the trial sees it: its program and its instruments.

use crate::control::ControlSocket;
use crate::heard::Heard;
use crate::instruments::Running;
use crate::peers::PeerProcess;
use anyhow::{Result, anyhow};
use netns::Namespace;
use observe::SocketDiag;
use peer::{Instruction, Milestone};
use std::sync::Arc;
use timeline::Event;
use tokio::sync::Notify;

/// A program that was ended from outside the trial.
#[derive(Debug)]
pub(super) struct Gone(pub(super) &'static str);

impl std::fmt::Display for Gone {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "the {} process was killed from outside the trial", self.0)
    }
}

impl std::error::Error for Gone {}

/// A host's program and instruments.
pub(super) struct TrialHost {
    name: &'static str,
    peer: Option<PeerProcess>,
    /// What is left of a program whose main process was killed: a child of it.
    crashed: Option<PeerProcess>,
    /// Reports of the program that nothing has waited for yet.
    reached: Vec<Milestone>,
    /// How the program ended, if it has: `the client ended (exit status: 1): its last words`.
    ended: Option<String>,
    /// Whether the program has said anything since this was last cleared.
    pub(super) has_news: bool,
    /// Whether the process that was started for a command has ended.
    pub(super) has_exited: bool,
    /// What of the output of a program that has ended was left out.
    left_out: Option<Event>,
    /// By which its program orders faults.
    pub(super) control: Option<ControlSocket>,
    pub(super) instruments: Vec<Running>,
    /// Its sockets, as long as they are looked at.
    diag: Option<SocketDiag>,
    /// Wakes the instruments: something happened.
    pub(super) stirred: Arc<Notify>,
}

impl TrialHost {
    /// A host with nothing on it yet.
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            peer: None,
            crashed: None,
            reached: Vec::new(),
            ended: None,
            has_news: false,
            has_exited: false,
            left_out: None,
            control: None,
            instruments: Vec::new(),
            diag: None,
            stirred: Arc::default(),
        }
    }

    /// What it is called.
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// A program runs here from now on.
    pub(super) fn runs(&mut self, peer: PeerProcess) {
        self.peer = Some(peer);
        (self.reached, self.ended, self.has_exited) = (Vec::new(), None, false);
    }

    /// Its program.
    pub(super) fn peer(&mut self) -> Result<&mut PeerProcess> {
        Ok(self.peer.as_mut().ok_or(Gone(self.name))?)
    }

    /// Whether its program was started and has not ended.
    pub(super) const fn has_program(&self) -> bool {
        self.peer.is_some()
    }

    /// Whether its program is halfopen's own and reports its calls.
    pub(super) fn reports_calls(&self) -> bool {
        self.peer.as_ref().is_some_and(PeerProcess::reports_calls)
    }

    /// Tells its program something.
    pub(super) async fn tell(&mut self, instruction: Instruction) -> Result<()> {
        self.peer()?.tell(instruction).await
    }

    /// The program's next words; waits for ever where there is no program.
    pub(super) async fn hear(&mut self) -> Result<Heard> {
        match &mut self.peer {
            Some(peer) => peer.hear().await,
            None => std::future::pending().await,
        }
    }

    /// The program has reported how far it is.
    pub(super) fn has_reached(&mut self, milestone: Milestone) {
        self.reached.push(milestone);
    }

    /// The program has ended by itself.
    pub(super) fn has_ended(&mut self, how: String) {
        self.ended = Some(how);
        self.left_out = self.omitted();
        self.peer = None;
    }

    /// Whether the program has reported this.
    pub(super) fn reports(&self, milestone: &Milestone) -> bool {
        self.reached.iter().any(|reached| is_one(reached, milestone))
    }

    /// From now on, this is waited for anew.
    pub(super) fn forget(&mut self, milestone: &Milestone) {
        self.reached.retain(|reached| !is_one(reached, milestone));
    }

    /// How the program ended, if it has.
    pub(super) fn end(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// What of its program's output was left out so far, if anything.
    pub(super) fn omitted(&self) -> Option<Event> {
        self.peer.as_ref().and_then(PeerProcess::omitted).or_else(|| self.left_out.clone())
    }

    /// The error if something does not happen that its program was to do.
    pub(super) fn fails_to(&self, what: &str) -> anyhow::Error {
        match &self.ended {
            Some(how) => anyhow!("{how}").context(what.to_owned()),
            None => anyhow!("{what}"),
        }
    }

    /// SIGKILL to its program: to all of it, or to the process alone that was started.
    pub(super) async fn crash(&mut self, with_children: bool) -> Result<()> {
        self.peer()?.crash(with_children).await?;
        let peer = self.peer.take();
        if !with_children {
            self.crashed = peer;
        }
        Ok(())
    }

    /// Ends everything that runs here.
    pub(super) async fn end_programs(&mut self) -> Result<()> {
        let mut first = Ok(());
        for mut peer in [self.peer.take(), self.crashed.take()].into_iter().flatten() {
            first = first.and(peer.kill().await);
        }
        first
    }

    /// Its sockets, in its namespace. An open descriptor holds that: it is closed with the instruments.
    pub(super) fn sockets(&mut self, namespace: &Namespace) -> Result<&mut SocketDiag> {
        if self.diag.is_none() {
            self.diag = Some(SocketDiag::open(namespace)?);
        }
        Ok(self.diag.as_mut().expect("it is open"))
    }

    /// Has its tap leave out exchanges of data from now on, or not.
    pub(super) fn leave_out_exchanges(&self, leave_out: bool) -> Result<()> {
        let mut instruments = self.instruments.iter();
        Ok(instruments.try_for_each(|one| one.leave_out_exchanges(leave_out))?)
    }

    /// Stops looking at it.
    pub(super) async fn stop_instruments(&mut self) {
        self.diag = None;
        for instrument in std::mem::take(&mut self.instruments) {
            instrument.stop().await;
        }
    }
}

/// Whether two milestones are of one kind.
fn is_one(reached: &Milestone, milestone: &Milestone) -> bool {
    std::mem::discriminant(reached) == std::mem::discriminant(milestone)
}
