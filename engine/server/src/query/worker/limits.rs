//! What the process may take of the machine.
//!
//! `DataFusion`'s account of memory knows what its operators hold. What functions and kernels allocate beside them is seen
//! here, as the system counts it: a watch looks every few milliseconds while a query runs, and the system refuses what would
//! be far too much at once. Both end the process, and no other one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};

use crate::memory::bytes_in;

/// How often the watch looks.
const EVERY: Duration = Duration::from_millis(4);
/// How much a process may have grown when it answers another question.
const GROWTH: u64 = 32 << 20;

/// Where memory is short, the system takes this process first. It leaves no image of its memory behind when it ends.
pub fn give_way() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Ends the process at once.
pub fn end() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

/// Looks after the memory of the process.
pub struct Watch {
    thread: Thread,
    is_on: Arc<AtomicBool>,
    /// What the process has before its first question.
    before: u64,
}

/// The watch looks until this is dropped.
pub struct Watched<'a>(&'a Watch);

impl Watch {
    /// A watch that lets a query have so many bytes, and a quarter more.
    pub fn start(memory_bytes: usize) -> std::io::Result<Self> {
        let allowed = memory_bytes as u64;
        let before = own_bytes("RssAnon:").unwrap_or(0);
        let most = before + allowed + allowed / 4;
        let is_on = Arc::new(AtomicBool::new(false));
        let looking = Arc::clone(&is_on);
        let watching = move || {
            loop {
                if !looking.load(Ordering::Acquire) {
                    std::thread::park();
                    continue;
                }
                if own_bytes("RssAnon:").is_some_and(|bytes| bytes > most) {
                    end();
                }
                std::thread::sleep(EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("watch".into()).spawn(watching)?.thread().clone();
        if let Some(data) = own_bytes("VmData:") {
            // Address space that is taken and not used counts here, so it is twice as much.
            let most = Some(data + 2 * allowed + GROWTH);
            setrlimit(Resource::Data, Rlimit { current: most, maximum: most })?;
        }
        Ok(Self { thread, is_on, before })
    }

    /// Begins to look.
    pub fn begin(&self) -> Watched<'_> {
        self.is_on.store(true, Ordering::Release);
        self.thread.unpark();
        Watched(self)
    }

    /// Whether the process is about as small as it was.
    pub fn is_small(&self) -> bool {
        own_bytes("RssAnon:").is_none_or(|bytes| bytes < self.before + GROWTH)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.is_on.store(false, Ordering::Release);
    }
}

/// A line of the system's account of this process; there is none on systems other than Linux.
fn own_bytes(line: &str) -> Option<u64> {
    bytes_in(&std::fs::read_to_string("/proc/self/status").ok()?, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_knows_what_this_process_has() {
        let before = own_bytes("RssAnon:").expect("a line");
        let bytes = vec![1_u8; 64 << 20];
        let after = own_bytes("RssAnon:").expect("a line");
        assert!(after > before + (32 << 20), "{before} {after} {}", bytes.len());
        assert!(own_bytes("VmData:").expect("a line") >= after / 2);
    }
}
