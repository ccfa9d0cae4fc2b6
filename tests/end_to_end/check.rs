//! `cornjacket check` from the outside: what it prints, what it leaves alone, and its exit codes.

use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::process::{binary, example};

const WRONG: &str = "pipeline: x\nevents: { a.b: { payload: { v: int } } }\nsources: { api: { http: {} } }\n\
                     streams: { s: SELECT w FROM a.b }\nsinks: { out: { stdout: { from: s } } }\n";
const RIGHT: &str = "pipeline: y\nevents: { a.b: { payload: { v: int } } }\nsources: { api: { http: {} } }\n\
                     streams: { s: \"SELECT v FROM ${TABLE}\" }\nsinks: { out: { stdout: { from: s } } }\n";

fn check(arguments: &[&str], folder: &Path) -> Output {
    binary().arg("check").args(arguments).current_dir(folder).env("TABLE", "a.b").output().expect("runs")
}

fn said(output: &Output) -> (String, Option<i32>) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}

#[test]
fn files_and_folders_are_checked_in_one_go() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("more")).expect("a folder");
    std::fs::write(folder.path().join("wrong.yaml"), WRONG).expect("a file");
    std::fs::write(folder.path().join("more/right.yml"), RIGHT).expect("a file");
    std::fs::write(folder.path().join("more/compose.yaml"), "services: {}\n").expect("a file");

    let (text, code) = said(&check(&["."], folder.path()));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("error[CJ208]") && text.contains("wrong.yaml:4:22"), "{text}");
    assert!(text.contains("warning[CJ013]") && text.contains("`TABLE`"), "{text}");
    assert!(text.contains("2 files: 1 error, 1 warning\n1 other YAML file without"), "{text}");

    let (text, code) = said(&check(&["more/right.yml"], folder.path()));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.ends_with("more/right.yml is right: 1 source, 1 stream, 1 sink, 1 warning\n"), "{text}");

    let (text, code) = said(&check(&["--json", "wrong.yaml", "more/right.yml"], folder.path()));
    let document: Value = serde_json::from_str(&text).expect("one document");
    assert_eq!((code, &document["errors"], &document["warnings"]), (Some(1), &json!(1), &json!(1)), "{text}");
    assert_eq!(document["files"][0]["file"], "wrong.yaml");
    assert_eq!(document["files"][0]["diagnostics"][0]["line"], 4);
    assert_eq!(document["files"][1]["ok"], true);
}

#[test]
fn what_is_not_there_is_the_environments_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let (text, code) = said(&check(&["none.yaml"], folder.path()));
    assert_eq!(code, Some(2));
    assert!(text.contains("`none.yaml` does not exist"), "{text}");
    let (text, code) = said(&check(&["."], folder.path()));
    assert!(code == Some(1) && text.contains("no pipeline file was found"), "{text}");
    assert_eq!(said(&check(&[], folder.path())).1, Some(1));
    let help = said(&check(&["--help"], folder.path()));
    assert!(help.1 == Some(0) && help.0.contains("Exit codes:") && help.0.contains("CJ_DATA_DIR"), "{}", help.0);
}

#[test]
fn connections_are_looked_at_and_nothing_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let file = example();
    let file = file.to_str().expect("UTF-8");
    let connect = ["--connect", "--data-dir", "new/data", "--query-port", "0", "--ingestion-port"];

    let (text, code) = said(&check(&[&connect[..], &["0", file]].concat(), folder.path()));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("ok     data folder new/data: not there yet, `run` makes it"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "{text}");

    let (text, code) = said(&check(&[&connect[..], &[&port, file]].concat(), folder.path()));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains(&format!("failed ingest port {port} on 127.0.0.1: in use")), "{text}");
    let (text, _) = said(&check(&[&connect[..], &[&port, "--json", file]].concat(), folder.path()));
    let document: Value = serde_json::from_str(&text).expect("one document");
    assert_eq!(document["connections"][1]["ok"], false, "{text}");
}
