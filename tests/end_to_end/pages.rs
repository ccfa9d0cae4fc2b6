//! The examples of pages in `docs`: run in their order, they print what stands there.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Process, binary, example};

/// A command as the page has it, and what it prints.
struct Example {
    command: String,
    expected: String,
}

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    std::fs::read_to_string(path).expect("the page")
}

fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(fence.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    for line in blocks(page, "console").into_iter().flat_map(str::lines) {
        match (line.strip_prefix("$ "), examples.last_mut()) {
            (Some(command), _) => examples.push(Example { command: command.into(), expected: String::new() }),
            (None, Some(last)) => last.expected.extend([line, "\n"]),
            (None, None) => panic!("a block begins with its command: {line}"),
        }
    }
    examples
}

/// Whether a text is what is expected, where `…` stands for anything within a line.
fn fits(text: &str, expected: &str) -> bool {
    let line_fits = |(line, expected): (&str, &str)| {
        let mut rest = line;
        for (number, part) in expected.split('…').enumerate() {
            match rest.find(part) {
                Some(at) if number > 0 || at == 0 => rest = &rest[at + part.len()..],
                _ => return false,
            }
        }
        rest.is_empty() || expected.ends_with('…')
    };
    text.lines().count() == expected.lines().count() && text.lines().zip(expected.lines()).all(line_fits)
}

fn shell(command: &str, folder: &Path, process: &Process) -> String {
    let at = |url: &str| url.trim_start_matches("http://").to_string();
    let command =
        command.replace("127.0.0.1:8080", &at(&process.ingest)).replace("127.0.0.1:8081", &at(&process.query));
    let program = PathBuf::from(binary().get_program());
    let programs = program.parent().expect("a folder").display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let mut sh = Command::new("sh");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CJ_")) {
        sh.env_remove(name);
    }
    let output = sh
        .arg("-c")
        .arg(&command)
        .current_dir(folder)
        .env("PATH", path)
        .env("CJ_DATA_DIR", "data")
        .output()
        .expect("a shell");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn what_the_page_on_http_shows_is_so() {
    let (page, folder) = (page("http.md"), tempfile::tempdir().expect("a folder"));
    let (pipeline, data) = (folder.path().join("sensors.yaml"), folder.path().join("data"));
    std::fs::write(&pipeline, blocks(&page, "yaml")[0]).expect("written");
    let mut process = Process::start(&pipeline, &data).await;
    let examples = examples(&page);
    assert!(examples.len() > 15, "{} examples", examples.len());
    for Example { command, expected } in examples {
        if let Some(arguments) = command.strip_prefix("cornjacket run sensors.yaml ") {
            process.assert_balanced().await;
            assert!(process.terminate().success());
            let arguments = arguments.replace("keys.txt", folder.path().join("keys.txt").to_str().expect("UTF-8"));
            process = Process::start_with(&pipeline, &data, &arguments.split(' ').collect::<Vec<_>>()).await;
            continue;
        }
        let printed = shell(&command, folder.path(), &process);
        assert!(fits(&printed, &expected), "$ {command}\nprints\n{printed}\nand the page says\n{expected}");
    }
    let audit =
        shell("CJ_API_KEY=$(cat grafana.key) cornjacket audit > audit.json && echo balanced", folder.path(), &process);
    assert_eq!(audit, "balanced\n");
}

#[tokio::test]
async fn what_the_page_on_reading_shows_is_so() {
    let (page, folder) = (page("queries.md"), tempfile::tempdir().expect("a folder"));
    let process = Process::start(&example(), &folder.path().join("data")).await;
    let examples = examples(&page);
    assert!(examples.len() > 7, "{} examples", examples.len());
    for Example { command, expected } in examples {
        let printed = shell(&command, folder.path(), &process);
        assert!(fits(&printed, &expected), "$ {command}\nprints\n{printed}\nand the page says\n{expected}");
        // The next example may read what this one wrote.
        let left = "SELECT sum(end_offset - reflected_offset) AS n FROM cornjacket.topics";
        process.sql_until(left, |rows| rows[0]["n"] == 0).await;
    }
    process.assert_balanced().await;
}
