//! How far sources with an end are: bars on a terminal, and what became of everything at the end.

use std::time::Duration;

use cornjacket_compiler::Pipeline;
use cornjacket_core::source::Unit;
use cornjacket_runtime::SourceStatus;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bars for as long as this is kept.
pub(super) struct Bars {
    drawing: Option<(JoinHandle<()>, MultiProgress)>,
}

impl Bars {
    /// Shows a bar for each source with an end, if somebody looks.
    pub(super) fn show(pipeline: &Pipeline, status: watch::Receiver<Vec<SourceStatus>>) -> Self {
        let is_looked_at = std::io::IsTerminal::is_terminal(&std::io::stderr());
        if !is_looked_at || !super::is_bounded(pipeline) {
            return Self { drawing: None };
        }
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let bars: Vec<ProgressBar> = status.borrow().iter().map(|source| all.add(bar(&source.name))).collect();
        let drawing = tokio::spawn(async move {
            loop {
                draw(&bars, &status.borrow());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self { drawing: Some((drawing, all)) }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        if let Some((drawing, all)) = self.drawing.take() {
            drawing.abort();
            // The summary says it all.
            let _ = all.clear();
        }
    }
}

fn bar(name: &str) -> ProgressBar {
    ProgressBar::new(0).with_prefix(name.to_string())
}

fn style(unit: Unit) -> ProgressStyle {
    let template = match unit {
        Unit::Bytes => "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        Unit::Events => "{prefix} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn draw(bars: &[ProgressBar], sources: &[SourceStatus]) {
    for (bar, source) in bars.iter().zip(sources) {
        if let Some(progress) = source.progress {
            bar.set_style(style(progress.unit));
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        }
    }
}

/// Says what became of what was read.
pub(super) fn summary(sources: &[SourceStatus], pending: u64) {
    for SourceStatus { name, taken, .. } in sources {
        let mut parts = vec![format!("{} stored", events(taken.stored))];
        if taken.repeated > 0 {
            parts.push(format!("{} there already", taken.repeated));
        }
        if taken.rejected > 0 {
            parts.push(format!("{} wrong, kept as dead letters", taken.rejected));
        }
        eprintln!("{name}: {}", parts.join(", "));
    }
    if pending > 0 {
        let deliveries = if pending == 1 { "delivery has" } else { "deliveries have" };
        eprintln!("{pending} {deliveries} not arrived yet: the next run goes on with what is left");
    }
}

fn events(number: u64) -> String {
    if number == 1 { "1 event".into() } else { format!("{number} events") }
}
