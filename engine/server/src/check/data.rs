//! `cornjacket check --data`: everything that is wrong with a data folder that no process holds.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stdout};
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use comfy_table::{Cell, Color, Table};
use cornjacket_storage::{Finding, Report, verify_folder};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::folder::{ReadLock, holder};
use crate::{Failure, INPUT_IS_WRONG};

/// Looks at a data folder, and says what is wrong with it.
pub fn check(folder: &Path, as_json: bool) -> Result<(), Failure> {
    let _held = lock(folder).map_err(Failure::Environment)?;
    let bar = bar();
    let mut watch = |what: &str, done: u64, total: u64| {
        if bar.message() != what {
            bar.set_style(style(total));
            bar.set_length(total);
            bar.set_message(what.to_string());
        }
        bar.set_position(done);
    };
    let report = verify_folder(folder, &mut watch);
    bar.finish_and_clear();
    let report = report.map_err(|error| Failure::Environment(anyhow!(error)))?;
    let text = if as_json || !stdout().is_terminal() { lines(folder, &report) } else { table(&report) };
    // Whoever reads has perhaps seen enough; what was found stays what it is.
    let _ = stdout().lock().write_all(text.as_bytes());
    if report.is_sound() {
        return Ok(());
    }
    eprintln!("error: {}", verdict(folder, &report));
    Err(Failure::Told(INPUT_IS_WRONG))
}

/// No process may begin to use the folder meanwhile.
fn lock(folder: &Path) -> anyhow::Result<Option<ReadLock>> {
    let shown = folder.display();
    if !folder.is_dir() {
        return Err(anyhow!("{shown} is not there, or no folder: name the data folder of `run --data-dir`"));
    }
    match holder(folder) {
        Ok(Ok(lock)) => Ok(lock),
        Ok(Err(process)) => Err(anyhow!(
            "{shown} is in use by cornjacket (process {process}), and what it writes meanwhile would look like damage. End it \
             first (kill -TERM {process}), or check a copy that was made as docs/operations.md says. What a running process \
             can say of itself says `cornjacket audit --data-dir {shown}`"
        )),
        Err(error) => Err(anyhow!("the lock of {shown} cannot be looked at: {error}")),
    }
}

/// A bar on stderr, if somebody looks.
fn bar() -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(10)
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    bar.set_style(style(0));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn style(total: u64) -> ProgressStyle {
    let template =
        if total > 0 { "{spinner} {msg} {wide_bar} {human_pos}/{human_len} {eta}" } else { "{spinner} {msg}" };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn verdict(folder: &Path, report: &Report) -> String {
    let faults: usize = report.findings.iter().map(|finding| finding.faults.len()).sum();
    let things = if faults == 1 { "thing is" } else { "things are" };
    format!("{faults} {things} wrong with {}", folder.display())
}

/// A line of JSON for each check, and one for each thing that was not checked.
fn lines(folder: &Path, report: &Report) -> String {
    let mut text = String::new();
    for Finding { check, of, looked_at, faults } in &report.findings {
        let line = json!({"check": check, "of": of, "looked_at": looked_at, "ok": faults.is_empty(), "faults": faults});
        let _ = writeln!(text, "{line}");
    }
    for unchecked in &report.unchecked {
        let line = json!({"check": "not checked", "of": folder.display().to_string(), "looked_at": unchecked, "ok": null, "faults": []});
        let _ = writeln!(text, "{line}");
    }
    text
}

fn table(report: &Report) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_header(["check", "of", "looked at", ""]);
    for Finding { check, of, looked_at, faults } in &report.findings {
        let verdict = match faults.len() {
            0 => Cell::new("sound"),
            1 => Cell::new("1 FAULT").fg(Color::Red),
            more => Cell::new(format!("{more} FAULTS")).fg(Color::Red),
        };
        table.add_row([Cell::new(check), Cell::new(of), Cell::new(looked_at), verdict]);
    }
    let mut text = format!("{table}\n");
    for finding in &report.findings {
        for (number, fault) in finding.faults.iter().enumerate() {
            let _ = writeln!(text, "\n{}\n  {}", fault.place, fault.what);
            // What is to be done about several of a kind is said once.
            if finding.faults.get(number + 1).is_none_or(|next| next.remedy != fault.remedy) {
                let _ = writeln!(text, "  what to do: {}", fault.remedy);
            }
        }
    }
    text.push_str("\nNot checked:\n");
    for unchecked in &report.unchecked {
        let _ = writeln!(text, "  - {unchecked}");
    }
    text
}

#[cfg(test)]
mod tests {
    use cornjacket_storage::Fault;

    use super::*;

    #[test]
    fn a_fault_is_told_with_its_place_and_what_to_do() {
        let fault = Fault { place: "log.db: block 7".into(), what: "it is short".into(), remedy: "put it back".into() };
        let of = |faults| Finding { check: "blocks", of: "log.db".into(), looked_at: "1 block".into(), faults };
        let report = Report { findings: vec![of(vec![]), of(vec![fault])], unchecked: vec!["the weather".into()] };
        let shown = table(&report);
        assert!(shown.contains("1 FAULT") && shown.contains("sound"), "{shown}");
        assert!(shown.contains("log.db: block 7\n  it is short\n  what to do: put it back\n"), "{shown}");
        assert!(shown.contains("  - the weather\n"), "{shown}");
        assert_eq!(verdict(Path::new("data"), &report), "1 thing is wrong with data");
        let lines: Vec<serde_json::Value> =
            lines(Path::new("data"), &report).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!((&lines[0]["ok"], &lines[1]["faults"][0]["place"]), (&json!(true), &json!("log.db: block 7")));
        assert_eq!((&lines[2]["ok"], &lines[2]["looked_at"]), (&json!(null), &json!("the weather")));
    }

    #[test]
    fn a_folder_in_use_is_not_looked_at() {
        let folder = tempfile::tempdir().expect("a folder");
        let held = crate::folder::DataFolder::hold(folder.path()).expect("held");
        let Err(Failure::Environment(error)) = check(folder.path(), true) else { panic!("it was looked at") };
        let said = error.to_string();
        assert!(said.contains(&format!("process {}", std::process::id())) && said.contains("kill -TERM"), "{said}");
        drop(held);
        let Err(Failure::Environment(error)) = check(folder.path(), true) else { panic!("there is nothing in it") };
        assert!(error.to_string().contains("holds no log.db"), "{error}");
        assert!(check(&folder.path().join("none"), true).is_err());
    }
}
