//! API keys on the real binary: what each scope may, what is open to everybody, rates, changes of the file, and which
//! addresses are refused without keys.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::process::{Process, binary};

const PIPELINE: &str = "
pipeline: keys
events:
  sensor.reading: { payload: { value: double } }
sources: { api: { http: {} } }
sinks:
  newest: { projection: { from: sensor.reading, key: [aggregate_id] } }
";

fn line(name: &str, rest: &str) -> String {
    let hash: String = Sha256::digest(format!("{name}-secret")).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name} {hash} {rest}\n")
}

fn written(folder: &Path, keys: &str) -> (std::path::PathBuf, String) {
    let (pipeline, file) = (folder.join("keys.yaml"), folder.join("keys.txt"));
    std::fs::write(&pipeline, PIPELINE).expect("written");
    std::fs::write(&file, keys).expect("written");
    (pipeline, file.to_str().expect("UTF-8").to_string())
}

/// A client that shows a key with every request.
fn with_key(name: &str) -> Client {
    let value = HeaderValue::from_str(&format!("Bearer {name}-secret")).expect("a value");
    Client::builder()
        .default_headers(HeaderMap::from_iter([("authorization".parse().expect("a name"), value)]))
        .build()
        .expect("a client")
}

async fn problem(response: Response) -> (u16, String, Value) {
    let status = response.status().as_u16();
    let challenge =
        response.headers().get("www-authenticate").map_or("", |value| value.to_str().expect("text")).to_string();
    (status, challenge, response.json().await.expect("JSON"))
}

fn event() -> Value {
    json!({"event_type": "sensor.reading", "aggregate_id": "d1", "payload": {"value": 1}})
}

/// The requests that the scopes are about, with the scope that each needs.
fn requests(process: &Process, actions: &str, client: &Client) -> Vec<(&'static str, RequestBuilder)> {
    let (ingest, query) = (&process.ingest, &process.query);
    let sql = json!({"sql": "SELECT 1 AS one"});
    let lines = |url: String| client.post(url).header("content-type", "application/x-ndjson").body(event().to_string());
    vec![
        ("ingest", client.post(format!("{ingest}/api/v1/events")).json(&event())),
        ("ingest", lines(format!("{ingest}/api/v1/events/batch"))),
        ("query", client.post(format!("{query}/api/v1/sql")).json(&sql)),
        ("query", client.get(format!("{query}/api/v1/projections"))),
        ("query", client.get(format!("{query}/api/v1/events"))),
        ("query", client.get(format!("{query}/api/v1/audit"))),
        ("query", client.get(format!("{query}/api/v1/dead_letters"))),
        ("actions", client.get(format!("{actions}/api/v1/deliveries"))),
        ("actions", client.get(format!("{actions}/api/v1/actions"))),
        ("admin", client.post(format!("{ingest}/api/v1/dead_letters/1/replay"))),
        ("admin", client.post(format!("{ingest}/api/v1/dead_letters/1/discard"))),
        ("admin", client.request(Method::POST, format!("{actions}/api/v1/deliveries/1/redeliver"))),
    ]
}

fn actions_of(data: &Path) -> String {
    let text = std::fs::read_to_string(data.join("ports.json")).expect("ports");
    let ports: Value = serde_json::from_str(&text).expect("JSON");
    format!("http://127.0.0.1:{}", ports["actions"])
}

#[tokio::test]
async fn each_scope_opens_what_it_is_for_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let scopes = ["ingest", "query", "actions", "admin"];
    let keys: String = scopes.iter().map(|scope| line(scope, scope)).collect();
    let (pipeline, file) = written(folder.path(), &format!("# who may what\n{keys}"));
    let data = folder.path().join("data");
    let mut process = Process::start_with(&pipeline, &data, &["--api-keys-file", &file]).await;
    let actions = actions_of(&data);
    for scope in scopes {
        for (needed, request) in requests(&process, &actions, &with_key(scope)) {
            let shown = format!("{request:?}");
            let response = request.send().await.expect("answers");
            if scope == needed {
                // There is no such dead letter or delivery, and that is all that is wrong.
                assert!(
                    response.status().is_success() || response.status() == 404,
                    "{scope}: {} to {shown}",
                    response.status()
                );
            } else {
                let (status, challenge, body) = problem(response).await;
                assert_eq!((status, &body["code"]), (403, &json!("forbidden")), "{scope} to {shown}");
                assert!(body["error"].as_str().expect("text").contains(&format!("scope `{needed}`")), "{body}");
                assert!(
                    challenge.contains(&format!("error=\"insufficient_scope\", scope=\"{needed}\"")),
                    "{challenge}"
                );
            }
        }
    }
    for (_, request) in requests(&process, &actions, &Client::new()) {
        let (status, challenge, body) = problem(request.send().await.expect("answers")).await;
        assert_eq!(
            (status, &body["code"], challenge.as_str()),
            (401, &json!("unauthorized"), "Bearer realm=\"cornjacket\"")
        );
    }
    for (_, request) in requests(&process, &actions, &with_key("nobody")) {
        let (status, challenge, _) = problem(request.send().await.expect("answers")).await;
        assert!(status == 401 && challenge.contains("invalid_token"), "{status} {challenge}");
    }
    // Probes and scrapers have no key.
    for port in [&process.ingest, &process.query, &actions] {
        for path in ["/health", "/health/live", "/health/ready", "/metrics"] {
            assert_eq!(
                Client::new().get(format!("{port}{path}")).send().await.expect("answers").status(),
                200,
                "{path}"
            );
        }
    }
    // A large body is refused with an answer, not with a reset.
    let large = Client::new().post(format!("{}/api/v1/events", process.ingest)).body(vec![b' '; 900_000]);
    assert_eq!(large.send().await.expect("an answer").status(), 401);
    commands_show_their_key(&data);
    process.client = with_key("query");
    assert_eq!(process.sql("SELECT count(*) AS n FROM sensor.reading").await, [json!({"n": 2})]);
    process.assert_balanced().await;
}

fn commands_show_their_key(data: &Path) {
    let run = |arguments: &[&str], key: &str| {
        let output =
            binary().args(arguments).arg("--data-dir").arg(data).env("CJ_API_KEY", key).output().expect("runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, said) = run(&["query", "SELECT 1 AS one"], "query-secret");
    assert_eq!((code, said.trim()), (Some(0), "{\"one\":1}"));
    assert_eq!(run(&["audit"], "query-secret").0, Some(0));
    assert_eq!(run(&["explain", "--watermarks"], "query-secret").0, Some(0));
    let (code, said) = run(&["query", "SELECT 1 AS one"], "ingest-secret");
    assert!(code == Some(1) && said.contains("has not the scope `query`"), "{code:?} {said}");
    let (code, said) = run(&["send", &event().to_string()], "");
    assert!(code == Some(1) && said.contains("key"), "{code:?} {said}");
}

#[tokio::test]
async fn a_key_may_have_a_rate() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = line("slow", "ingest rate=3/h") + &line("fast", "ingest") + &line("eye", "query");
    let (pipeline, file) = written(folder.path(), &keys);
    let mut process = Process::start_with(&pipeline, &folder.path().join("data"), &["--api-keys-file", &file]).await;
    let (slow, fast) = (with_key("slow"), with_key("fast"));
    let post = async |client: &Client| {
        client.post(format!("{}/api/v1/events", process.ingest)).json(&event()).send().await.expect("answers")
    };
    for _ in 0..3 {
        assert_eq!(post(&slow).await.status(), 202);
    }
    let limited = post(&slow).await;
    let wait: u64 = limited.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1_000..=1_200).contains(&wait), "{wait}");
    let (status, _, body) = problem(limited).await;
    assert_eq!((status, &body["code"]), (429, &json!("rate_limited")));
    assert_eq!(post(&fast).await.status(), 202);
    process.client = with_key("eye");
    assert_eq!(process.sql("SELECT count(*) AS n FROM sensor.reading").await, [json!({"n": 4})]);
    process.assert_balanced().await;
}

#[tokio::test]
async fn a_changed_file_is_taken_up_and_a_wrong_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, file) = written(folder.path(), &(line("old", "ingest") + &line("eye", "query")));
    let mut process = Process::start_with(&pipeline, &folder.path().join("data"), &["--api-keys-file", &file]).await;
    let url = format!("{}/api/v1/events", process.ingest);
    let status =
        async |name: &str| with_key(name).post(&url).json(&event()).send().await.expect("answers").status().as_u16();
    let becomes = async |name: &str, expected: u16| {
        let deadline = Instant::now() + Duration::from_mins(2);
        while status(name).await != expected {
            assert!(Instant::now() < deadline, "{name} is not {expected}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!((status("old").await, status("new").await), (202, 401));
    std::fs::write(&file, line("new", "ingest") + &line("eye", "query")).expect("written");
    process.signal("HUP");
    becomes("new", 202).await;
    assert_eq!(status("old").await, 401);
    std::fs::write(&file, line("old", "ingst")).expect("written");
    process.signal("HUP");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((status("new").await, status("old").await), (202, 401));
    // Without a signal it is seen as well.
    std::fs::write(&file, line("old", "ingest") + &line("eye", "query")).expect("written");
    becomes("old", 202).await;
    process.client = with_key("eye");
    process.assert_balanced().await;
}

#[tokio::test]
async fn nothing_listens_beyond_loopback_unless_it_asks_who_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipeline, file) = written(folder.path(), &line("eye", "query"));
    let data = folder.path().join("data");
    let run = |arguments: &[&str]| {
        let output =
            binary().arg("run").arg(&pipeline).arg("--data-dir").arg(&data).args(arguments).output().expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for host in ["0.0.0.0", "::"] {
        let (code, said) = run(&["--host", host]);
        assert!(code == Some(2) && said.contains("--api-keys-file") && said.contains("--insecure"), "{code:?} {said}");
    }
    let (code, said) = run(&["--host", "0.0.0.0", "--api-keys-file", ""]);
    assert!(code == Some(2) && said.contains("nobody is asked"), "{code:?} {said}");
    std::fs::write(folder.path().join("wrong"), "# names\neye secret query\n").expect("written");
    let wrong = folder.path().join("wrong");
    let (code, said) = run(&["--api-keys-file", wrong.to_str().expect("UTF-8")]);
    assert!(
        code == Some(2) && said.contains("line 2: the second field is no SHA-256") && !said.contains("secret"),
        "{code:?} {said}"
    );
    assert!(!data.exists(), "a run that is refused leaves nothing");
    for arguments in [["--api-keys-file", file.as_str()].as_slice(), &["--insecure"]] {
        let mut process = Process::start_with(&pipeline, &data, &[&["--host", "0.0.0.0"], arguments].concat()).await;
        process.client = with_key("eye");
        process.assert_balanced().await;
        assert!(process.terminate().success());
    }
}
