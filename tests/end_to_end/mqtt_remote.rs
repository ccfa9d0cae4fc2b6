//! The mqtt source with an outside broker: what the broker has taken arrives, once and in order, whoever dies meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::mosquitto::{Mosquitto, Publisher, tool};
use crate::process::{Process, binary, number, variable};

const PIPELINE: &str = "
pipeline: outside
events:
  sensor.reading: { payload: { n: { type: bigint, min: 0 } } }
sources:
  devices:
    mqtt: { topics: [\"devices/+/reading\"], event: { type: sensor.reading, aggregate_id: \"${topic.1}\" } }
sinks:
  newest: { projection: { from: sensor.reading, key: [aggregate_id] } }
";

/// When nothing has come for so long, nothing comes.
const REST: Duration = Duration::from_millis(300);

/// A pipeline and a data folder in it.
fn place(folder: &Path) -> (PathBuf, PathBuf) {
    let file = folder.join("outside.yaml");
    std::fs::write(&file, PIPELINE).expect("written");
    (file, folder.join("data"))
}

async fn start((file, data): &(PathBuf, PathBuf), url: &str) -> Process {
    Process::start_with(file, data, &["--mqtt-url", url]).await
}

/// A metric of the source.
async fn metric(process: &Process, name: &str) -> u64 {
    let text = process.client.get(format!("{}/metrics", process.query)).send().await.expect("answers");
    let text = text.text().await.expect("text");
    let wanted = format!("cornjacket_mqtt_{name}{{source=\"devices\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&wanted));
    line.unwrap_or_else(|| panic!("no metric {name} in\n{text}")).parse().expect("a number")
}

async fn metric_until(process: &Process, name: &str, fits: impl Fn(u64) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let value = metric(process, name).await;
        if fits(value) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is still {value}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until so many events are stored and no more come; gives how often each number is there.
async fn stored(process: &Process, count: u64) -> BTreeMap<u64, u64> {
    process
        .sql_until("SELECT count(*) AS n FROM sensor.reading", |rows| {
            rows[0]["n"].as_u64().is_some_and(|found| found >= count)
        })
        .await;
    // One too many would come now.
    let (deadline, mut tick) = (Instant::now() + Duration::from_secs(30), tokio::time::interval(REST));
    let mut last = u64::MAX;
    loop {
        tick.tick().await;
        let now = metric(process, "messages_total").await;
        if now == last {
            break;
        }
        assert!(Instant::now() < deadline, "messages still come: {now}");
        last = now;
    }
    let rows = process.sql("SELECT n, count(*) AS times FROM sensor.reading GROUP BY n").await;
    rows.iter().map(|row| (row["n"].as_u64().expect("a number"), row["times"].as_u64().expect("a count"))).collect()
}

/// Each of the first numbers is there once, and nothing else; each device's are in their order.
async fn assert_once_and_in_order(process: &Process, count: u64) {
    let found = stored(process, count).await;
    let expected: BTreeMap<u64, u64> = (0..count).map(|number| (number, 1)).collect();
    let lost: Vec<_> = expected.keys().filter(|number| !found.contains_key(number)).collect();
    let doubled: Vec<_> = found.iter().filter(|(_, times)| **times > 1).collect();
    assert!(lost.is_empty() && doubled.is_empty(), "lost {lost:?}, doubled {doubled:?}");
    assert_eq!(found, expected);
    for device in 0..7 {
        let (_, page) = process.get(&format!("/api/v1/events?aggregate_id=d{device}&limit=10000")).await;
        let events = page["events"].as_array().expect("events");
        let order: Vec<u64> = events.iter().map(|event| event["payload"]["n"].as_u64().expect("a number")).collect();
        assert!(order.is_sorted(), "d{device} is out of order: {order:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_while_either_is_away_arrives() {
    let folder = tempfile::tempdir().expect("a folder");
    let (place, mut broker) = (place(folder.path()), Mosquitto::start());
    let mut publisher = Publisher::new(broker.port, None);
    let mut process = start(&place, &broker.url()).await;
    metric_until(&process, "connected", |connected| connected == 1).await;
    publisher.publish_all(0..500).await;
    assert_once_and_in_order(&process, 500).await;

    // Away in order: the session stays.
    assert!(process.terminate().success());
    publisher.publish_all(500..1_000).await;
    let process = start(&place, &broker.url()).await;
    assert_once_and_in_order(&process, 1_000).await;
    // Acknowledgements follow what is stored, and none is given that is not owed.
    metric_until(&process, "acks_total", |acks| acks == 500).await;

    // The broker is away. What it kept it sends; a new connection is no news for what was stored.
    broker.stop();
    metric_until(&process, "connected", |connected| connected == 0).await;
    broker.run();
    metric_until(&process, "connected", |connected| connected == 1).await;
    assert!(metric(&process, "reconnects_total").await >= 1);
    let mut publisher = Publisher::new(broker.port, None);
    publisher.publish_all(1_000..1_500).await;
    assert_once_and_in_order(&process, 1_500).await;
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_a_dead_letter_with_its_topic_and_retained_messages_are_old_news() {
    let folder = tempfile::tempdir().expect("a folder");
    let (place, broker) = (place(folder.path()), Mosquitto::start());
    let send = |arguments: &[&str]| {
        let port = broker.port.to_string();
        let status = tool("mosquitto_pub").args(["-p", &port, "-q", "1"]).args(arguments).status();
        assert!(status.expect("runs").success());
    };
    send(&["-r", "-t", "devices/d1/reading", "-m", "{\"n\": 1}"]);
    let process = start(&place, &broker.url()).await;
    metric_until(&process, "ignored_total", |ignored| ignored == 1).await;
    // The second is right JSON and fails the catalogue; the third is no JSON; the fourth is empty.
    for body in ["{\"n\": 2}", "{\"n\": -1}", "nonsense", ""] {
        send(&["-t", "devices/d1/reading", "-m", body]);
    }
    let sql = "SELECT reason, place, body FROM cornjacket.dead_letters ORDER BY id";
    let letters = process.sql_until(sql, |rows| rows.len() >= 3).await;
    let letter = |reason: &str, body: &str| json!({"reason": reason, "place": "devices/d1/reading", "body": body});
    assert_eq!(letters, [letter("validation", "{\"n\": -1}"), letter("decode", "nonsense"), letter("decode", "")]);
    let found = stored(&process, 1).await;
    assert_eq!(found, BTreeMap::from([(2, 1)]));
    metric_until(&process, "acks_total", |acks| acks == 5).await;
    let rows = process.sql("SELECT metadata FROM sensor.reading").await;
    let metadata: Value = serde_json::from_str(rows[0]["metadata"].as_str().expect("text")).expect("JSON");
    assert_eq!((&metadata["topic"], &metadata["source"]), (&json!("devices/d1/reading"), &json!("devices")));
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_taken_out_of_the_file_is_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let (place, broker) = (place(folder.path()), Mosquitto::start());
    let send = |topic: &str| {
        let port = broker.port.to_string();
        let status = tool("mosquitto_pub").args(["-p", &port, "-q", "1", "-m", "{\"n\": 1}", "-t", topic]).status();
        assert!(status.expect("runs").success());
    };
    std::fs::write(&place.0, PIPELINE.replace("[\"devices", "[\"old/+/reading\", \"devices")).expect("written");
    let mut process = start(&place, &broker.url()).await;
    metric_until(&process, "connected", |connected| connected == 1).await;
    send("old/d1/reading");
    stored(&process, 1).await;
    assert!(process.terminate().success());

    std::fs::write(&place.0, PIPELINE).expect("written");
    // It waits in the session, and nobody wants it any more.
    send("old/d1/reading");
    let process = start(&place, &broker.url()).await;
    metric_until(&process, "ignored_total", |ignored| ignored == 1).await;
    // What is no longer wanted is given up before what is wanted is asked for.
    metric_until(&process, "connected", |connected| connected == 1).await;
    send("old/d1/reading");
    send("devices/d1/reading");
    stored(&process, 2).await;
    assert_eq!((metric(&process, "messages_total").await, metric(&process, "ignored_total").await), (2, 1));
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_under_load_loses_nothing_and_doubles_nothing() {
    let kills = number("KILLS", 6);
    let seed = variable("SEED").unwrap_or(std::process::id());
    eprintln!("SEED={seed} KILLS={kills}");
    let folder = tempfile::tempdir().expect("a folder");
    let (place, broker) = (place(folder.path()), Mosquitto::start());
    let mut process = start(&place, &broker.url()).await;
    metric_until(&process, "connected", |connected| connected == 1).await;

    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let port = broker.port;
    let publishing = tokio::spawn(async move {
        let (mut publisher, mut number) = (Publisher::new(port, None), 0);
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while !*stopped.borrow_and_update() {
            tick.tick().await;
            for _ in 0..4 {
                number += u64::from(publisher.publish(number));
            }
            // What there is to do on the network, without waiting for more.
            while tokio::time::timeout(Duration::from_millis(1), publisher.turn()).await.is_ok() {}
        }
        publisher.settle().await;
        (number, publisher.taken)
    });
    let mut repeats = 0;
    for number in 0..kills {
        let dice = u64::from(seed).wrapping_add(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        tokio::time::sleep(Duration::from_millis(50 + dice % 700)).await;
        repeats += metric(&process, "repeats_total").await;
        process.kill();
        process = start(&place, &broker.url()).await;
    }
    stop.send(true).expect("it publishes");
    let (published, taken) = publishing.await.expect("published");
    assert_eq!(taken.len() as u64, published, "the broker has acknowledged everything");
    assert!(published > kills * 10, "hardly any load: {published}");
    assert_once_and_in_order(&process, published).await;
    repeats += metric(&process, "repeats_total").await;
    eprintln!("{published} published and stored once; {repeats} sent again that were stored");
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_group_shares() {
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let broker = Mosquitto::start();
    let url = format!("{}?share=iot", broker.url());
    let processes = [start(&place(folders[0].path()), &url).await, start(&place(folders[1].path()), &url).await];
    for process in &processes {
        metric_until(process, "connected", |connected| connected == 1).await;
    }
    Publisher::new(broker.port, None).publish_all(0..400).await;
    for process in &processes {
        metric_until(process, "acks_total", |acks| acks > 50).await;
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while metric(&processes[0], "acks_total").await + metric(&processes[1], "acks_total").await < 400 {
        assert!(Instant::now() < deadline, "not all has arrived");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (mut all, other) = (stored(&processes[0], 1).await, stored(&processes[1], 1).await);
    assert!(!all.is_empty() && !other.is_empty() && other.keys().all(|number| !all.contains_key(number)));
    all.extend(other);
    assert_eq!(all, (0..400).map(|number| (number, 1)).collect());
    for process in &processes {
        process.assert_balanced().await;
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let output = tool("openssl").current_dir(folder).args(arguments.split(' ')).output().expect("runs");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A broker with TLS and a password file; its certificate authority is `ca.pem` in its folder.
fn guarded() -> Mosquitto {
    Mosquitto::start_with(|folder| {
        openssl(folder, "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem");
        openssl(folder, "req -newkey rsa:2048 -nodes -subj /CN=broker -keyout broker.key -out broker.csr");
        std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("written");
        let sign =
            "x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out broker.pem";
        openssl(folder, sign);
        let users = folder.join("users");
        let status = tool("mosquitto_passwd").args(["-b", "-c"]).arg(&users).args(["me", "p@ss"]).status();
        assert!(status.expect("runs").success());
        let at = folder.display();
        format!("certfile {at}/broker.pem\nkeyfile {at}/broker.key\npassword_file {at}/users\nallow_anonymous false\n")
    })
}

/// What `check --connect` says of the broker, and whether all is well.
fn checked(place: &(PathBuf, PathBuf), url: &str) -> (String, bool) {
    let output = binary()
        .args(["check", "--connect", "--ingestion-port", "0", "--query-port", "0", "--actions-port", "0", "--data-dir"])
        .arg(&place.1)
        .arg(&place.0)
        .env("CJ_MQTT_URL", url)
        .output()
        .expect("runs");
    (
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        output.status.success(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_passwords() {
    let folder = tempfile::tempdir().expect("a folder");
    let (place, broker) = (place(folder.path()), guarded());
    let (port, authority) = (broker.port, broker.folder().join("ca.pem"));
    let authority = authority.display();
    let right = format!("mqtts://me:p%40ss@127.0.0.1:{port}?ca={authority}");

    let cases = [
        (right.clone(), true, "grants devices/+/reading"),
        (format!("mqtts://me:wrong@127.0.0.1:{port}?ca={authority}"), false, "the broker refuses: not authorised"),
        (format!("mqtts://127.0.0.1:{port}?ca={authority}"), false, "the broker refuses: not authorised"),
        // Its authority is not one of the machine's own.
        (format!("mqtts://me:p%40ss@127.0.0.1:{port}"), false, "ertificate"),
        (format!("mqtt://me:p%40ss@127.0.0.1:{port}"), false, "if it wants TLS, write mqtts://"),
        (format!("mqtts://me:p%40ss@127.0.0.1:{port}?ca=/nowhere"), false, "/nowhere"),
    ];
    for (url, is_right, expected) in cases {
        let (text, is_well) = checked(&place, &url);
        assert!(is_well == is_right && text.contains(expected), "{url}: {text}");
        assert!(!text.contains("p@ss") && !text.contains("p%40ss") && !text.contains("wrong"), "{text}");
    }
    assert!(!place.1.exists(), "looking changes nothing");

    let process = start(&place, &right).await;
    metric_until(&process, "connected", |connected| connected == 1).await;
    let body = tool("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-u", "me", "-P", "p@ss", "--cafile"])
        .arg(broker.folder().join("ca.pem"))
        .args(["-t", "devices/d1/reading", "-m", "{\"n\": 7}"])
        .status();
    assert!(body.expect("runs").success());
    assert_eq!(stored(&process, 1).await, BTreeMap::from([(7, 1)]));
    process.assert_balanced().await;
}

/// A plugin decides who may subscribe to what; nobody may.
fn refusing() -> Option<Mosquitto> {
    let plugin = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"]
        .iter()
        .map(|folder| Path::new(folder).join("mosquitto_dynamic_security.so"))
        .find(|file| file.is_file())?;
    Some(Mosquitto::start_with(|folder| {
        let rules = json!({"defaultACLAccess":
            {"publishClientSend": true, "publishClientReceive": true, "subscribe": false, "unsubscribe": true}});
        std::fs::write(folder.join("rules.json"), rules.to_string()).expect("written");
        let at = folder.display();
        format!("allow_anonymous true\nplugin {}\nplugin_opt_config_file {at}/rules.json\n", plugin.display())
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_subscription_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = place(folder.path());
    let broker = refusing().expect("mosquitto_dynamic_security.so of Debian's package `mosquitto` is not there");
    let (text, is_well) = checked(&place, &broker.url());
    assert!(!is_well && text.contains("refuses to subscribe us to devices/+/reading"), "{text}");
    let process = start(&place, &broker.url()).await;
    metric_until(&process, "refused_subscriptions", |refused| refused == 1).await;
    assert_eq!(metric(&process, "connected").await, 1);
    process.assert_balanced().await;
}

#[test]
fn a_broken_url_is_told_without_its_password_and_no_url_is_the_embedded_broker() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = place(folder.path());
    let output =
        binary().arg("run").arg(&place.0).args(["--mqtt-url", "http://u:secret@broker"]).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("--mqtt-url (CJ_MQTT_URL) cannot be used") && !text.contains("secret"), "{text}");
    let help = binary().args(["run", "--help"]).env("CJ_MQTT_URL", "mqtt://u:secret@broker").output().expect("runs");
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(help.contains("--mqtt-url") && !help.contains("secret"), "{help}");
    let (text, is_well) = checked(&place, "");
    assert!(is_well && text.contains("the embedded broker will listen"), "{text}");
}
