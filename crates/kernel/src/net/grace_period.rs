//! Waiting until every packet that the kernel is working on has passed.

use super::{Error, Result};
use rustix::io::Errno;
use rustix::thread::MembarrierCommand;

/// Waits until every packet that is on its way through the packet rules now has left them: some 10 ms.
///
/// Packets pass the rules inside an RCU read section, and `membarrier(MEMBARRIER_CMD_GLOBAL)` waits for an RCU grace
/// period. On a kernel that reserves CPUs for one process each (`nohz_full`) it cannot, and this returns at once.
pub fn wait_for_packets() -> Result<()> {
    match rustix::thread::membarrier(MembarrierCommand::Global) {
        Ok(()) | Err(Errno::INVAL | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(Error::new("wait for packets on their way", errno)),
    }
}
