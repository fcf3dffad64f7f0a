//! Ctrl-C, and a request to end: the first ends a run with what was measured, the second at once. Either way no process
//! that was started stays behind.

use crate::Failure;
use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a shell says of a program that was interrupted.
const INTERRUPTED: i32 = 130;

/// Processes that would outlive this one, and what ends them.
static STARTED: Mutex<Vec<(Pid, Signal)>> = Mutex::new(Vec::new());

/// From now on the flag is set when somebody wants an end.
pub fn watch() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            end_all();
            std::process::exit(INTERRUPTED);
        }
    })?;
    Ok(stop)
}

/// A process that a second interrupt ends with this signal, until it is forgotten.
#[derive(Debug)]
pub struct Started(Pid);

impl Started {
    pub fn new(pid: u32, signal: Signal) -> Result<Self, Failure> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("a process without a number")?;
        STARTED.lock().map_err(|_| "the list of processes is broken")?.push((pid, signal));
        Ok(Self(pid))
    }

    /// Sends it a signal.
    pub fn tell(&self, signal: Signal) -> Result<(), Failure> {
        Ok(kill_process(self.0, signal)?)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Ok(mut started) = STARTED.lock() {
            started.retain(|&(pid, _)| pid != self.0);
        }
    }
}

fn end_all() {
    let Ok(started) = STARTED.lock() else { return };
    for &(pid, signal) in started.iter() {
        // One that has ended by itself is none to end.
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn what_was_started_is_ended_unless_it_is_forgotten() {
        let mut children: Vec<_> =
            (0..2).map(|_| Command::new("sleep").arg("60").spawn().expect("there is a sleep")).collect();
        let started = children.iter().map(|child| Started::new(child.id(), Signal::KILL).expect("it has a number"));
        let mut started: Vec<_> = started.collect();
        drop(started.pop());
        end_all();
        let ended = children[0].wait().expect("it is ours");
        assert_eq!(ended.signal(), Some(Signal::KILL.as_raw()));
        children[1].kill().expect("it still runs");
        children[1].wait().expect("it is ours");
    }
}
