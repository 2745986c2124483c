//! How many processes a fault of processes has met: all that a program has started are to be killed, or
//! stopped.

use super::Trial;
use anyhow::Result;
use spec::{FaultKind, Parameters};
use std::fs;
use std::time::Duration;
use timeline::What;
use timeline::event::FaultStep;
use tokio::time::sleep;

/// A process acts on a signal when it has a processor: it is looked at so often, so far apart.
const LOOKS: usize = 100;
const APART: Duration = Duration::from_millis(1);

impl Trial {
    /// The processes of the lost host's program that a fault is to meet, by their numbers here.
    pub(super) async fn processes_to_meet(&mut self, parameters: &Parameters) -> Result<Vec<u32>> {
        match parameters.fault.kind {
            FaultKind::ProcessCrash | FaultKind::ProcessFreeze => {
                let mut members = self.server.peer()?.members().await?;
                members.retain(|pid| state(*pid).is_some_and(|state| !matches!(state, 'Z' | 'X')));
                Ok(members)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Notes how many of them it has met, and how many it has not.
    pub(super) async fn count_processes(
        &mut self,
        parameters: &Parameters,
        before: Vec<u32>,
    ) -> Result<()> {
        let is_crash = parameters.fault.kind == FaultKind::ProcessCrash;
        // One that forked just before the signal has brought its child along.
        let all = if is_crash { before } else { self.processes_to_meet(parameters).await? };
        if all.is_empty() {
            return Ok(());
        }
        let is_met = |pid: &u32| match state(*pid) {
            None | Some('Z' | 'X') => true,
            Some('T' | 't') => !is_crash,
            Some(_) => false,
        };
        let mut left = all.iter().filter(|pid| !is_met(pid)).count();
        for _ in 0..LOOKS {
            if left == 0 || is_crash {
                break;
            }
            sleep(APART).await;
            left = all.iter().filter(|pid| !is_met(pid)).count();
        }
        let met = all.len() - left;
        self.mark(What::Fault(FaultStep::Processes { met: met as u32, left: left as u32 }));
        Ok(())
    }
}

/// The state of a process (`proc_pid_stat(5)`); `None`: there is none.
fn state(pid: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::state;

    #[test]
    fn a_process_has_a_state_until_it_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(state(child.id()).is_some_and(|state| !matches!(state, 'Z' | 'X')));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(state(child.id()), None);
    }
}
