//! Runs what recurses as deep as a user's SQL nests on a stack of its own.
//!
//! The SQL engine walks expressions recursively and is not free of panics; neither may take the process down. So its work
//! runs on a thread with a large stack, of which only what is used takes memory, and a panic there becomes an error here.

use std::any::Any;

/// Bytes of stack: two orders of magnitude more than threads have by default.
const STACK: usize = 256 << 20;

/// Runs `work` there.
///
/// # Errors
/// The reason, if the thread cannot be started or `work` panics.
pub(crate) fn isolated<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("sql".into()).stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| format!("no thread can be started: {error}"))?;
        thread.join().map_err(|panic| panic_text(&*panic))
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "an internal error".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_comes_back_as_its_text() {
        let seven = 7;
        assert_eq!(isolated(|| seven + 1), Ok(8));
        assert_eq!(isolated(|| -> u8 { panic!("on {seven}") }), Err("on 7".into()));
    }
}
