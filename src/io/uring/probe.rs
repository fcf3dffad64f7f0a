//! Whether this kernel has what the driver needs, tried rather than guessed from its version.

use super::UringDriver;
use crate::base::clock::Now;
use crate::io::epoll::sys;
use crate::io::{Driver, Op, Outcome, Socket, Token, Wait};
use io_uring::opcode;
use std::io;
use std::time::Duration;

/// How long the trial install may take; it is answered at once where it works.
const PATIENCE: Duration = Duration::from_secs(1);

/// Everything submitted.
const OPERATIONS: [(u8, &str); 10] = [
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::PollRemove::CODE, "POLL_REMOVE"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::AcceptMulti::CODE, "ACCEPT"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    (opcode::Shutdown::CODE, "SHUTDOWN"),
    (opcode::FilesUpdate::CODE, "FILES_UPDATE"),
    (opcode::Close::CODE, "CLOSE"),
    (opcode::AsyncCancel2::CODE, "ASYNC_CANCEL"),
];

/// Why io_uring cannot be used, in words for one log line.
pub(in crate::io) fn missing() -> Option<String> {
    try_everything().err()
}

fn try_everything() -> Result<(), String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let mut driver = UringDriver::with_table_slots(1).map_err(failed("setting up a ring with deferred task work"))?;
    let probe = driver.rings[0].probe().map_err(failed("asking for operations"))?;
    for (code, name) in OPERATIONS {
        if !probe.is_supported(code) {
            return Err(format!("the kernel has no operation {name}"));
        }
    }
    // A direct descriptor in a place that the kernel chooses came last of all that is needed (with 6.0 and 6.1), and
    // any fd will do.
    let fd = sys::eventfd().map_err(failed("an eventfd"))?;
    driver.submit(Op::Install { socket: Socket::from(fd), token: Token(0) });
    match first_outcome(&mut driver).map_err(failed("entering the ring"))? {
        Some(Outcome::Installed(slot)) => {
            driver.close(slot);
            Ok(())
        }
        Some(Outcome::InstallFailed { error, .. }) => Err(format!("installing a direct descriptor: {error}")),
        _ => Err("installing a direct descriptor was not answered".to_owned()),
    }
}

fn first_outcome(driver: &mut UringDriver) -> io::Result<Option<Outcome>> {
    let mut completions = Vec::new();
    let mut now: Now = driver.poll(Wait::No, 1, &mut completions)?;
    let deadline = now.deadline(PATIENCE);
    while completions.is_empty() && now.monotonic_ms < deadline {
        now = driver.poll(Wait::Until(deadline), 1, &mut completions)?;
    }
    Ok(completions.pop().map(|completion| completion.outcome))
}
