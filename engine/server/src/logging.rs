//! Logs go to stderr, so that stdout is the pipeline's.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::fmt;

use crate::cli::LogFormat;

/// Starts logging.
pub fn start(level: tracing::Level, format: LogFormat) {
    let builder = fmt().with_max_level(level).with_writer(stderr).with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
}
