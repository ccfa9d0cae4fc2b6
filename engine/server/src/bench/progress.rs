//! How far a measure is, if somebody looks.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

const TICK: Duration = Duration::from_millis(100);

/// A bar for as long as this is kept.
pub(super) struct Progress {
    bar: ProgressBar,
    drawing: JoinHandle<()>,
}

impl Progress {
    /// A bar for something that takes a known time, or a spinner.
    pub(super) fn show(name: &str, time: Option<Duration>) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let template = if time.is_some() { "{msg:32} {wide_bar} {elapsed}" } else { "{msg:32} {spinner} {elapsed}" };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        // Where stderr is no terminal, nothing is drawn.
        let bar = ProgressBar::with_draw_target(time.map(millis), ProgressDrawTarget::stderr_with_hz(10));
        let bar = bar.with_style(style).with_message(name.to_owned());
        let (drawn, began) = (bar.clone(), Instant::now());
        let drawing = tokio::spawn(async move {
            loop {
                let done = millis(began.elapsed());
                drawn.set_position(drawn.length().map_or(done, |length| done.min(length)));
                drawn.tick();
                tokio::time::sleep(TICK).await;
            }
        });
        Self { bar, drawing }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.drawing.abort();
        self.bar.finish_and_clear();
    }
}
