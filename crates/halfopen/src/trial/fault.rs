//! The fault: what is broken, destroyed, booted again and restored, and when.

use super::Trial;
use anyhow::Result;
use lab::sysctl;
use nix::sys::signal::Signal;
use observe::clock::monotonic_ns;
use peer::Instruction;
use sandbox::waited_ns;
use spec::effect::HostFate;
use spec::{FaultAct, FaultKind, Parameters, Part, Program};
use std::collections::HashMap;
use std::time::Duration;
use timeline::event::{FaultStep, LATE_LEAST_NS};
use timeline::{Source, What};
use tokio::time::Instant;

/// What the laboratory does while it watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Later {
    /// It ends the fault.
    Restore,
    /// The fault of this place comes.
    Break(usize),
    /// It changes sysctls.
    ChangeSysctls,
}

impl Trial {
    pub(super) async fn inject(&mut self, parameters: &Parameters) -> Result<()> {
        self.release();
        let processes = self.processes_to_meet(parameters).await?;
        self.flows.fault_begins(monotonic_ns());
        let begun_ns = monotonic_ns();
        self.mark(What::Fault(FaultStep::Begin));
        let act = match parameters.fault.kind {
            FaultKind::None => FaultAct::Nothing,
            FaultKind::ProcessCrash => {
                self.server.crash(!parameters.server.inherited).await?;
                // Its connections are closed while it ends, which waits for processors and for the kernel's
                // own threads.
                let took_ns = monotonic_ns() - begun_ns;
                self.mark_late(took_ns.saturating_sub(model::allowance::EXIT.as_nanos() as u64));
                if parameters.server.program == Program::Command {
                    let signal = Some(Signal::SIGKILL as i32);
                    self.mark_as(Source::ServerProgram, What::Exited { code: None, signal });
                }
                FaultAct::Killed
            }
            FaultKind::ProcessFreeze => {
                self.server.peer()?.signal(Signal::SIGSTOP).await?;
                FaultAct::Stopped
            }
            FaultKind::PowerOff | FaultKind::Reboot | FaultKind::Takeover | FaultKind::Flap => {
                self.stage.network_mut()?.cut().await?
            }
            FaultKind::Blackhole | FaultKind::Mtu => {
                let sieve = parameters.fault.sieve();
                self.stage.network_mut()?.blackhole(sieve).await?
            }
            FaultKind::Reject => self.stage.network_mut()?.reject(parameters.fault.reject).await?,
            // Its rules are in force from before the connection.
            FaultKind::Forget => FaultAct::RouterForgets,
            FaultKind::Unplug => self.stage.network_mut()?.unplug().await?,
        };
        self.mark(What::Fault(FaultStep::Done(act)));
        // The client goes on at once: what is destroyed behind a dead cable it cannot see.
        if !parameters.runs_command() && !std::mem::replace(&mut self.has_begun, true) {
            self.client.tell(Instruction::Begin).await?;
        }
        if parameters.fault.effect().destroys_host() {
            self.look_at_links().await?;
            return self.destroy_server().await;
        }
        self.count_processes(parameters, processes).await?;
        self.mark(What::Fault(FaultStep::Complete));
        self.look_at_links().await
    }

    fn mark_late(&mut self, by_ns: u64) {
        if by_ns >= LATE_LEAST_NS {
            self.mark_as(Source::Instrument, What::Late { by_ns });
        }
    }

    /// For how long each process of the server's program has waited for a processor so far, nanoseconds,
    /// where the program ends connections by timers of its own: they are late by no more than what it
    /// waits meanwhile.
    pub(super) async fn turns(&mut self, parameters: &Parameters) -> Result<HashMap<u32, u64>> {
        if parameters.server.program != Program::Nginx {
            return Ok(HashMap::new());
        }
        let members = self.server.peer()?.members().await?;
        Ok(members.into_iter().filter_map(|pid| Some((pid, waited_ns(pid)?))).collect())
    }

    /// Notes for how long one of them has waited since.
    pub(super) fn mark_turns(&mut self, before: &HashMap<u32, u64>) {
        let since = before.iter().filter_map(|(pid, before)| waited_ns(*pid)?.checked_sub(*before));
        self.mark_late(since.max().unwrap_or(0));
    }

    /// Ends everything in the server's host, and begins to end the host itself. The kernel takes
    /// its time for that, and the client does not wait: it goes on while [`Self::follow_until`]
    /// follows it.
    async fn destroy_server(&mut self) -> Result<()> {
        self.server.end_programs().await?;
        self.server.stop_instruments().await;
        self.stage.destroy_server()
    }

    /// Waits until the server's host is gone, if it is on its way out.
    pub(super) async fn finish_destroying(&mut self) -> Result<()> {
        if !self.stage.is_destroying() {
            return Ok(());
        }
        let done = self.stage.destroyed().await?;
        self.server_is_destroyed(done).await
    }

    /// The server's host is gone. One that comes back boots at once, behind a cable that is dead
    /// still: what is left to do when its time comes is quickly done.
    pub(super) async fn server_is_destroyed(&mut self, done: FaultAct) -> Result<()> {
        self.mark(What::Fault(FaultStep::Done(done)));
        self.mark(What::Fault(FaultStep::Complete));
        self.look_at_links().await?;
        let fault = &self.plan.experiment.parameters.fault;
        if fault.effect().host == HostFate::Replaced {
            let new_mac = fault.moves();
            self.stage.network_mut()?.boot_server(new_mac).await?;
            self.look_at(Part::Server)?;
            if self.plan.experiment.parameters.starts_again() {
                self.start(Part::Server).await?;
            }
        }
        Ok(())
    }

    /// Watches until the client knows or the deadline has passed, and ends faults that end.
    pub(super) async fn watch(
        &mut self,
        parameters: &Parameters,
        fault_at: Instant,
        deadline: Duration,
    ) -> Result<()> {
        let deadline = fault_at + deadline;
        for (at, act) in Self::later_acts(parameters, fault_at) {
            let is_over =
                self.follow_exactly_until(at.min(deadline), Self::is_told).await? || at > deadline;
            match act {
                Later::Restore if is_over => self.mark(What::Fault(FaultStep::Outlasted)),
                Later::Restore => self.restore(parameters).await?,
                Later::ChangeSysctls if is_over => {}
                Later::ChangeSysctls => self.change_sysctls(parameters)?,
                Later::Break(_) => {}
            }
        }
        self.follow_to_the_end(deadline).await
    }

    /// What is to be done while the trial watches, in order.
    pub(super) fn later_acts(parameters: &Parameters, fault_at: Instant) -> Vec<(Instant, Later)> {
        let later = &parameters.later;
        let change =
            (!later.sysctl.is_empty()).then_some((fault_at + later.after, Later::ChangeSysctls));
        let restore = parameters.fault_duration().map(|after| (fault_at + after, Later::Restore));
        let mut acts: Vec<_> = change.into_iter().chain(restore).collect();
        acts.sort_by_key(|(at, _)| *at);
        acts
    }

    pub(super) fn change_sysctls(&mut self, parameters: &Parameters) -> Result<()> {
        let client = self.stage.client()?;
        for (name, value) in &parameters.later.sysctl {
            let one = spec::sysctl::Sysctls::from([(name.clone(), value.clone())]);
            sysctl::apply(&client, &one)?;
            self.mark(What::Sysctl { name: name.clone(), value: value.clone() });
        }
        Ok(())
    }

    pub(super) async fn restore(&mut self, parameters: &Parameters) -> Result<()> {
        self.release();
        self.mark(What::Fault(FaultStep::Restoring));
        let fault = &parameters.fault;
        match fault.still.map_or(fault.kind, |still| still.kind) {
            FaultKind::ProcessFreeze => self.server.peer()?.signal(Signal::SIGCONT).await?,
            FaultKind::Flap | FaultKind::Blackhole | FaultKind::Mtu | FaultKind::Reject => {
                let done = self.stage.network_mut()?.restore().await?;
                self.mark(What::Fault(FaultStep::Done(done)));
            }
            FaultKind::Reboot | FaultKind::Takeover => {
                self.finish_destroying().await?;
                // A command may take as long as it does.
                if parameters.server.program != Program::Command && parameters.starts_again() {
                    self.wait_for_listener(Part::Server).await?;
                }
                let done = self.stage.network_mut()?.connect_server().await?;
                self.mark(What::Fault(FaultStep::Done(done)));
                if parameters.fault.announces() {
                    let done = self.stage.network()?.announce_server().await?;
                    self.mark(What::Fault(FaultStep::Done(done)));
                }
            }
            FaultKind::None
            | FaultKind::ProcessCrash
            | FaultKind::PowerOff
            | FaultKind::Forget
            | FaultKind::Unplug => {}
        }
        self.mark(What::Fault(FaultStep::Restored));
        Ok(())
    }
}
