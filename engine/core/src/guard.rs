//! Work that may panic, such as that of libraries on values which nobody thought of: a panic becomes an error, so that it
//! costs the rows at hand and not the process.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Whether a panic of this thread would become an error now: a panic hook need not alarm anyone then.
#[must_use]
pub fn is_guarded() -> bool {
    DEPTH.get() > 0
}

/// Does the work; if it panics, that is an [`Error::Compute`] with the panic's words. Whatever the work changes may be half
/// changed then, as after any other error.
///
/// # Errors
/// As the work, or when it panics.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    DEPTH.set(DEPTH.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    outcome.unwrap_or_else(|panic| Err(Error::Compute(format!("a bug was met: {}", words_of(&*panic)))))
}

/// What a panic said.
#[must_use]
pub fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_words() {
        let error = guarded::<()>(|| panic!("index {} of a list of {}", 3, 2)).expect_err("it panics");
        assert_eq!(error.to_string(), "a bug was met: index 3 of a list of 2");
        assert!(!is_guarded());
        assert!(guarded(|| Ok(is_guarded())).expect("no panic"));
    }
}
