//! `cornjacket init`: a new project that runs.
//!
//! The templates are real files, so that tests compile them as they are and people can read them where they lie.

use std::fs::{self, File};
use std::io::{ErrorKind, Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};

use crate::{Failure, schema};

/// What `init --help` begins with.
pub const ABOUT: &str = "\
Make a new project that runs: a pipeline file with comments and tests, the SQL it needs, a README
with the exact commands, and the JSON Schema for your editor.

Nothing that is there is overwritten. Without a folder the project is made in the current one, if
that is empty.";

/// What `init --help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  cornjacket init my-project
  cornjacket init my-project --template iot
  cd my-project && cornjacket run pipeline.yaml

Exit codes: 0 made, 1 files are in the way, 2 the folder cannot be written.";

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The project's folder; made if it is not there.
    pub dir: Option<PathBuf>,
    /// What the project is about.
    #[arg(long, short, value_enum, default_value_t = Template::Minimal)]
    pub template: Template,
}

/// What a project may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// Page views: the smallest pipeline that does something.
    Minimal,
    /// Device readings to minute statistics and newest state.
    Iot,
    /// Failed logins by user and minute, and who is suspicious.
    Security,
}

/// A file of a project.
struct ProjectFile {
    path: &'static str,
    purpose: &'static str,
    text: String,
}

fn file(path: &'static str, purpose: &'static str, text: impl Into<String>) -> ProjectFile {
    ProjectFile { path, purpose, text: text.into() }
}

impl Template {
    /// The files of a project, in the order in which one reads them.
    fn files(self) -> Vec<ProjectFile> {
        let readme = "the exact commands";
        let pipeline = "event types, sources, streams, sinks and tests";
        let mut files = match self {
            Self::Minimal => vec![
                file("README.md", readme, include_str!("../templates/minimal/README.md")),
                file("pipeline.yaml", pipeline, include_str!("../templates/minimal/pipeline.yaml")),
            ],
            Self::Iot => vec![
                file("README.md", readme, include_str!("../templates/iot/README.md")),
                file("pipeline.yaml", pipeline, include_str!("../templates/iot/pipeline.yaml")),
                file("sql/minutes.sql", "statistics of each minute", include_str!("../templates/iot/sql/minutes.sql")),
            ],
            Self::Security => vec![
                file("README.md", readme, include_str!("../templates/security/README.md")),
                file("pipeline.yaml", pipeline, include_str!("../templates/security/pipeline.yaml")),
                file(
                    "sql/failures_per_minute.sql",
                    "failed logins of each minute",
                    include_str!("../templates/security/sql/failures_per_minute.sql"),
                ),
            ],
        };
        files.push(file("pipeline.schema.json", "lets an editor complete and check the pipeline file", schema::text()));
        files.push(file(".gitignore", "keeps data/ out of version control", include_str!("../templates/gitignore")));
        files
    }
}

/// Makes the project and says what to do next.
pub fn init(arguments: &Arguments) -> Result<(), Failure> {
    let folder = match &arguments.dir {
        Some(folder) => folder.clone(),
        None => empty_current_folder()?,
    };
    let files = arguments.template.files();
    refuse_what_is_there(&folder, &files)?;
    for file in &files {
        write(&folder, file)?;
    }
    // The project is made, whether or not anybody reads of it.
    let _ = stdout().lock().write_all(report(&folder, &files).as_bytes());
    Ok(())
}

/// The current folder, if nothing but hidden things (`.git`) is in it.
fn empty_current_folder() -> Result<PathBuf, Failure> {
    let folder = PathBuf::from(".");
    let entries = fs::read_dir(&folder).context("the current folder cannot be read").map_err(Failure::Environment)?;
    let is_visible = |entry: &fs::DirEntry| !entry.file_name().to_string_lossy().starts_with('.');
    if entries.flatten().any(|entry| is_visible(&entry)) {
        let problem = anyhow!("the current folder is not empty; name a new one: cornjacket init my-project");
        return Err(Failure::Input(problem));
    }
    Ok(folder)
}

/// Nothing is overwritten: either every file is new, or none is written.
fn refuse_what_is_there(folder: &Path, files: &[ProjectFile]) -> Result<(), Failure> {
    if fs::symlink_metadata(folder).is_ok() && !folder.is_dir() {
        return Err(Failure::Input(anyhow!("{} is a file; name a folder", folder.display())));
    }
    let is_there = |file: &&ProjectFile| fs::symlink_metadata(folder.join(file.path)).is_ok();
    let there: Vec<&str> = files.iter().filter(is_there).map(|file| file.path).collect();
    if there.is_empty() {
        return Ok(());
    }
    let (names, place) = (there.join(", "), folder.display());
    Err(Failure::Input(anyhow!("{place} has these already: {names}. Nothing was written; name another folder")))
}

fn write(folder: &Path, file: &ProjectFile) -> Result<(), Failure> {
    let path = folder.join(file.path);
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
        // Whoever made it in the meantime keeps it.
        File::create_new(&path)?.write_all(file.text.as_bytes())
    });
    let wrap = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::Input(anyhow!("{} is there already", path.display())),
        _ => Failure::Environment(anyhow::Error::new(error).context(format!("{} cannot be written", path.display()))),
    };
    written.map_err(wrap)
}

fn report(folder: &Path, files: &[ProjectFile]) -> String {
    let width = files.iter().map(|file| file.path.len()).max().unwrap_or_default();
    let list: String = files.iter().map(|file| format!("  {:width$}  {}\n", file.path, file.purpose)).collect();
    let is_elsewhere = folder != Path::new(".");
    let enter = if is_elsewhere { format!("  cd {}\n", shell_word(&folder.to_string_lossy())) } else { String::new() };
    let commands = ["check", "test", "run"].map(|command| format!("  cornjacket {command} pipeline.yaml\n")).concat();
    format!(
        "Made in {}:\n{list}\nNext:\n{enter}{commands}\nWhat to send and what to ask then is in README.md.\n",
        folder.display()
    )
}

/// A path as one word of a shell.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(is_plain) { text.into() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use cornjacket_compiler::{check, render};
    use cornjacket_operators::REGISTRY;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::test;

    fn made(dir: &Path, template: Template) -> Result<(), Failure> {
        init(&Arguments { dir: Some(dir.into()), template })
    }

    #[test]
    fn every_template_makes_a_project_without_a_fault() {
        for template in Template::value_variants() {
            let folder = tempfile::tempdir().unwrap();
            let project = folder.path().join("deep/project");
            assert!(made(&project, *template).is_ok(), "{template:?}");
            let outcome = check(&project.join("pipeline.yaml"), &|_| None, &REGISTRY);
            assert_eq!(render(&outcome.diagnostics, false), "", "{template:?}");
            assert!(outcome.pipeline.is_some(), "{template:?}");
            assert!(fs::read_to_string(project.join(".gitignore")).unwrap().contains("/data/"));
            let readme = fs::read_to_string(project.join("README.md")).unwrap();
            assert!(readme.contains("cornjacket run pipeline.yaml") && readme.contains("curl --json"), "{readme}");
            let named = fs::read_to_string(project.join("pipeline.yaml")).unwrap();
            assert!(named.starts_with("# yaml-language-server: $schema=pipeline.schema.json\n"), "{named}");
        }
    }

    #[test]
    fn every_template_passes_its_own_tests() {
        for template in Template::value_variants() {
            let folder = tempfile::tempdir().unwrap();
            assert!(made(folder.path(), *template).is_ok(), "{template:?}");
            let file = folder.path().join("pipeline.yaml");
            let cli = Cli::try_parse_from(["cornjacket".as_ref(), "test".as_ref(), file.as_os_str()]).unwrap();
            let Command::Test(arguments) = cli.command else { panic!("it is another command") };
            let outcome = test::test(&arguments);
            assert!(outcome.is_ok(), "{template:?}: {outcome:?}");
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let readme = folder.path().join("README.md");
        fs::write(&readme, "mine").unwrap();
        let Err(Failure::Input(error)) = made(folder.path(), Template::Iot) else { panic!("it was not refused") };
        assert!(error.to_string().contains("has these already: README.md."), "{error}");
        assert_eq!(fs::read_to_string(&readme).unwrap(), "mine");
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing else is written: {left:?}");
        assert!(matches!(made(&readme, Template::Iot), Err(Failure::Input(_))), "a file is no folder");
    }

    #[test]
    fn paths_are_words_of_a_shell() {
        assert_eq!(shell_word("my-project"), "my-project");
        assert_eq!(shell_word("my project's"), "'my project'\\''s'");
    }
}
