//! Webhooks, a setting at a time: giving up and sending again, repeats, rates, order, addresses, a sink that is off, a
//! restart in the middle of a wait, and a receiver that never answers.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use standardwebhooks::Webhook;

use crate::hooks::{Pipeline, ask, counted, deliveries, event, event_at, newest, values};
use crate::process::Process;
use crate::receiver::{Receiver, Reply, Request};

/// 2026-01-01.
const BEGIN_MS: u64 = 1_767_225_600_000;
const MINUTE: u64 = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_a_dead_letter_and_is_sent_again_when_asked() {
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let reply = move |_: &Request, _| {
        if well.load(Ordering::SeqCst) { Reply::status(202) } else { Reply::Answer(500, "", "out of\norder") }
    };
    let receiver = Receiver::start(reply).await;
    let settings = "retry: { first: 50ms, factor: 2, max_age: 700ms }";
    let pipeline = Pipeline::new(&[("page", &receiver.url("/page"), settings)]);
    let process = pipeline.start(&[]).await;
    let event_id = process.accept(&event("d1", 95.0)).await;

    let dead = newest(&process, |found| found["status"] == "dead").await;
    let attempts = dead["attempts"].as_u64().expect("a number");
    assert!((3..=8).contains(&attempts), "{dead}");
    assert_eq!(dead["event_id"], json!(event_id));
    assert_eq!((&dead["last_status"], &dead["next_attempt_at"]), (&json!(500), &Value::Null), "{dead}");
    assert_eq!(dead["last_error"], "the receiver answered 500: out of order");
    let seen = receiver.seen();
    assert_eq!(seen.len() as u64, attempts);
    // The last attempt is at the end of its life, whatever the wait would have been.
    let lived = seen[seen.len() - 1].at - seen[0].at;
    assert!((Duration::from_millis(600)..Duration::from_mins(1)).contains(&lived), "{lived:?}");
    let id = dead["id"].as_str().expect("an id");
    assert_eq!(deliveries(&process, "?status=dead&action=page").await.len(), 1);
    assert!(deliveries(&process, "?status=delivered").await.is_empty());

    let (_, letters) = process.get("/api/v1/dead_letters?reason=webhook").await;
    let letter = &letters["dead_letters"][0];
    assert_eq!((&letter["source"], &letter["place"], &letter["state"]), (&json!("page"), &json!(id), &json!("open")));
    assert_eq!(letter["body"], seen[0].text());
    let expected = format!("given up after {attempts} attempts: the receiver answered 500: out of order");
    assert_eq!(letter["message"], json!(expected));
    let (_, trace) = process.get(&format!("/api/v1/events/{event_id}")).await;
    assert_eq!(trace["trace"]["dead_letters"].as_array().map(Vec::len), Some(1), "{trace}");
    let told = json!([{"id": id, "action": "page", "status": "dead", "attempts": attempts}]);
    assert_eq!(trace["trace"]["deliveries"], told);
    let mut rows = process.sql("SELECT * FROM cornjacket.deliveries").await;
    assert_eq!(rows[0]["body"], seen[0].text());
    rows[0].as_object_mut().expect("a row").remove("body");
    assert_eq!(rows, std::slice::from_ref(&dead), "SQL and HTTP say the same");
    let (code, _, said) = pipeline.command(&["dlq", "replay", &letter["id"].to_string()]).await;
    assert!(code == 1 && said.contains(&format!("cornjacket deliveries redeliver {id}")), "{code} {said}");
    process.assert_balanced().await;

    is_well.store(true, Ordering::SeqCst);
    let (code, said, wrong) = pipeline.command(&["deliveries", "redeliver", id]).await;
    assert_eq!((code, said.as_str(), wrong.as_str()), (0, format!("{id} is due now\n").as_str(), ""));
    let delivered = newest(&process, |found| found["status"] == "delivered").await;
    assert_eq!((&delivered["attempts"], &delivered["last_error"]), (&json!(1), &Value::Null));
    // Also one that has arrived may be sent again.
    let again = process.client.post(format!("{}/api/v1/deliveries/{id}/redeliver", process.actions)).send().await;
    assert_eq!(again.expect("answers").status(), 202);
    let seen = receiver.until(seen.len() + 2).await;
    assert!(seen.iter().all(|request| request.id() == id && request.body == seen[0].body), "{seen:?}");
    counted(&process, "delivered", 1).await;
    let (_, letters) = process.get("/api/v1/dead_letters?reason=webhook").await;
    assert_eq!(letters["dead_letters"][0]["state"], "replayed");

    let (code, shown, _) = pipeline.command(&["deliveries", "show", id]).await;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((code, &shown["body"]), (0, &json!(seen[0].text())));
    let (code, _, said) = pipeline.command(&["deliveries", "redeliver", "msg_nothing"]).await;
    assert!(code == 1 && said.contains("there is no delivery `msg_nothing`"), "{code} {said}");
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_gone_is_asked_once_and_the_status_says_it_all() {
    let reply = |request: &Request, _| match values(std::slice::from_ref(request))[0] {
        1.0 => Reply::status(410),
        _ => Reply::Endless(200),
    };
    let receiver = Receiver::start(reply).await;
    let pipeline = Pipeline::new(&[("page", &receiver.url("/"), "timeout: 300ms, retry: { first: 10ms }")]);
    let process = pipeline.start(&[]).await;
    process.accept(&event("d1", 1.0)).await;
    counted(&process, "dead", 1).await;
    assert_eq!(deliveries(&process, "").await[0]["last_error"], "the receiver answered 410");
    // It has said that it has it, so a body that never ends is its own affair.
    process.accept(&event("d1", 2.0)).await;
    counted(&process, "delivered", 1).await;
    assert_eq!(values(&receiver.seen()), [1.0, 2.0]);
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_gets_what_the_settings_say_and_can_check_it() {
    let (old, new) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
    let receiver = Receiver::start(|_, _| Reply::status(200)).await;
    let body = r#"{\"text\": \"${device} has ${value}\", \"value\": ${value}}"#;
    let signed =
        format!("secret: [{new}, {old}], headers: {{ authorization: Bearer s3cret, X-Team: heat }}, body: \"{body}\"");
    let pipeline =
        Pipeline::new(&[("signed", &receiver.url("/signed?a=b"), &signed), ("plain", &receiver.url("/plain"), "")]);
    let process = pipeline.start(&[]).await;
    process.accept(&event("a\"b\\c", 95.5)).await;
    let seen = receiver.until(2).await;
    let of = |path: &str| seen.iter().find(|request| request.path == path).expect("called");
    let (signed, plain) = (of("/signed?a=b"), of("/plain"));
    for secret in [old, new] {
        Webhook::new(secret).expect("a secret").verify(&signed.body, &signed.headers).expect("verified");
    }
    let stranger = Webhook::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx").expect("a secret");
    assert!(stranger.verify(&signed.body, &signed.headers).is_err());
    assert!(Webhook::new(old).expect("a secret").verify(b"{}", &signed.headers).is_err());
    assert_eq!(signed.header("authorization"), Some("Bearer s3cret"));
    assert_eq!(signed.header("x-team"), Some("heat"));
    assert_eq!(signed.text(), r#"{"text": "a\"b\\c has 95.5", "value": 95.5}"#);
    assert_eq!(plain.header("webhook-signature"), None);
    assert!(plain.header("webhook-timestamp").is_some());
    assert_eq!(plain.header("content-type"), Some("application/json"));
    assert!(plain.header("user-agent").is_some_and(|agent| agent.starts_with("Cornjacket/")));
    assert_eq!(plain.text(), r#"{"device":"a\"b\\c","value":95.5}"#);
    assert_ne!(plain.id(), signed.id());
    // Neither the URL's path nor a header is shown to anybody.
    let shown = format!("{} {:?}", ask(&process, "/api/v1/actions").await, deliveries(&process, "").await);
    assert!(!shown.contains("s3cret") && !shown.contains("a=b"), "{shown}");
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_within_the_window_are_left_out_also_after_a_restart() {
    let receiver = Receiver::start(|_, _| Reply::status(200)).await;
    let settings = "dedupe: { key: [device], window: 5m }";
    let pipeline = Pipeline::new(&[("page", &receiver.url("/"), settings)]);
    let mut process = pipeline.start(&[]).await;
    let at = |minutes: u64| BEGIN_MS + minutes * MINUTE;
    for (device, value, time) in
        [("d1", 1.0, at(0)), ("d1", 2.0, at(1)), ("d1", 3.0, at(5) - 1), ("d2", 4.0, at(1)), ("d1", 5.0, at(5))]
    {
        process.accept(&event_at(device, value, time)).await;
    }
    let action = counted(&process, "delivered", 3).await;
    assert_eq!(action["suppressed"], 2);
    process.kill();
    let process = pipeline.start(&[]).await;
    process.accept(&event_at("d1", 6.0, at(9))).await;
    process.accept(&event_at("d1", 7.0, at(10))).await;
    counted(&process, "delivered", 4).await;
    counted(&process, "suppressed", 3).await;
    let mut told = values(&receiver.seen());
    told.sort_by(f64::total_cmp);
    assert_eq!(told, [1.0, 4.0, 5.0, 7.0]);
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_the_rate_waits_and_is_not_dropped() {
    let receiver = Receiver::start(|_, before| Reply::status(if before % 3 == 1 { 503 } else { 200 })).await;
    let pipeline = Pipeline::new(&[("page", &receiver.url("/"), "rate_limit: 5/s, retry: { first: 10ms }")]);
    let mut process = pipeline.start(&[]).await;
    for value in 0..14 {
        process.accept(&event("d1", f64::from(value))).await;
    }
    receiver.until(7).await;
    process.kill();
    let killed_at = receiver.seen().len();
    let process = pipeline.start(&[]).await;
    counted(&process, "delivered", 14).await;
    let seen = receiver.seen();
    // Tries of what failed count as well.
    assert!(seen.len() >= 20, "{}", seen.len());
    // What was under way at the kill is not known to have been, so each process is looked at by itself.
    for calls in [&seen[..killed_at], &seen[killed_at..]] {
        let closest = calls.windows(6).map(|six| six[5].at - six[0].at).min().expect("enough");
        assert!(closest > Duration::from_millis(800), "six calls within {closest:?}");
    }
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_order_each_waits_for_the_one_before() {
    let receiver = Receiver::start(|_, before| Reply::status(if before % 3 == 2 { 200 } else { 500 })).await;
    let settings = "ordered: true, concurrency: 8, retry: { first: 5ms, factor: 1 }";
    let pipeline = Pipeline::new(&[("page", &receiver.url("/"), settings)]);
    let mut process = pipeline.start(&[]).await;
    for value in 0..20 {
        process.accept(&event("d1", f64::from(value))).await;
    }
    receiver.until(20).await;
    process.kill();
    let process = pipeline.start(&[]).await;
    counted(&process, "delivered", 20).await;
    let told = values(&receiver.seen());
    assert!(told.is_sorted(), "{told:?}");
    assert!(told.len() >= 60, "each was tried three times: {told:?}");
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_not_allowed_are_not_called_and_redirects_not_followed() {
    let receiver = Receiver::start(|_, _| Reply::status(200)).await;
    let port = receiver.at.port();
    let urls =
        [format!("http://127.0.0.1:{port}/"), format!("http://localhost:{port}/"), format!("http://0x7f.1:{port}/")];
    let settings = "retry: { first: 10ms, max_age: 200ms }";
    let names = ["by_number", "by_name", "by_hex"];
    let sinks: Vec<_> = names.iter().zip(&urls).map(|(name, url)| (*name, url.as_str(), settings)).collect();
    let pipeline = Pipeline::new(&sinks);
    let mut process = pipeline.start(&["--actions-allow-nets", "10.0.0.0/8"]).await;
    process.accept(&event("d1", 1.0)).await;
    process.sql_until("SELECT id FROM cornjacket.dead_letters", |rows| rows.len() == 3).await;
    for name in names {
        let found = deliveries(&process, &format!("?action={name}")).await;
        let error = found[0]["last_error"].as_str().expect("an error");
        assert!(error.contains("is no public address: allow it with CJ_ACTIONS_ALLOW_NETS"), "{name}: {error}");
    }
    assert!(receiver.seen().is_empty());
    process.assert_balanced().await;
    process.kill();

    // The same receiver is allowed by default, and the address that another one names in its answer is not called.
    let location = format!("location: http://127.0.0.1:{port}/secret\r\n");
    let location: &'static str = Box::leak(location.into_boxed_str());
    let mover = Receiver::start(move |_, _| Reply::Answer(307, location, "")).await;
    pipeline.write(&[("moved", &mover.url("/"), settings), ("by_number", &urls[0], settings)]);
    let process = pipeline.start(&[]).await;
    process.accept(&event("d1", 2.0)).await;
    counted(&process, "dead", 1).await;
    let found = deliveries(&process, "?action=moved").await;
    assert_eq!(found[0]["last_error"], "the receiver answered 307 (redirects are not followed)");
    assert!(mover.seen().len() > 1);
    assert!(receiver.until(1).await.iter().all(|request| request.path == "/"));
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_url_nothing_is_sent_or_kept_and_the_log_says_so() {
    let is_up = Arc::new(AtomicBool::new(true));
    let up = Arc::clone(&is_up);
    let receiver = Receiver::start(move |_, _| Reply::status(if up.load(Ordering::SeqCst) { 200 } else { 503 })).await;
    let pipeline = Pipeline::new(&[("page", "${CJ_TEST_NO_SUCH_VARIABLE:-}", "")]);
    let log = pipeline.folder.path().join("log");
    let file = File::create(&log).expect("a file");
    let mut process = Process::start_telling(&pipeline.file(), &pipeline.data, &[], file).await;
    process.accept(&event("d1", 1.0)).await;
    let action = counted(&process, "suppressed", 1).await;
    assert_eq!((&action["state"], &action["endpoint"], &action["pending"]), (&json!("off"), &Value::Null, &json!(0)));
    assert!(deliveries(&process, "").await.is_empty());
    let said = std::fs::read_to_string(&log).expect("a log");
    assert!(said.contains("the webhook is off: its URL is empty") && said.contains("sink=\"page\""), "{said}");
    process.assert_balanced().await;
    process.kill();
    // On again, it tells of what comes then.
    is_up.store(false, Ordering::SeqCst);
    pipeline.write(&[("page", &receiver.url("/"), "retry: { first: 10ms }")]);
    let mut process = pipeline.start(&[]).await;
    process.accept(&event("d1", 2.0)).await;
    receiver.until(2).await;
    let id = newest(&process, |found| found["status"] == "pending").await["id"].as_str().expect("an id").to_string();
    process.kill();

    // Off once more, what was written meanwhile waits, and nobody may believe that it is sent.
    pipeline.write(&[("page", "", "")]);
    let file = File::create(&log).expect("a file");
    let mut process = Process::start_telling(&pipeline.file(), &pipeline.data, &[], file).await;
    let (code, _, said) = pipeline.command(&["deliveries", "redeliver", &id]).await;
    assert!(code == 1 && said.contains("`page` is off or no longer in the file"), "{code} {said}");
    let deadline = Instant::now() + Duration::from_mins(2);
    let warning = "deliveries from before wait until the file has this webhook again and it is on";
    while !std::fs::read_to_string(&log).expect("a log").contains(warning) {
        assert!(Instant::now() < deadline, "{}", std::fs::read_to_string(&log).expect("a log"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    process.assert_balanced().await;
    process.kill();
    is_up.store(true, Ordering::SeqCst);
    pipeline.write(&[("page", &receiver.url("/"), "")]);
    let process = pipeline.start(&[]).await;
    counted(&process, "delivered", 1).await;
    assert!(values(&receiver.seen()).iter().all(|value| *value > 1.5), "the first one was never sent");
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_of_a_wait_goes_on_with_it() {
    let receiver = Receiver::start(|_, before| Reply::status(if before == 0 { 500 } else { 200 })).await;
    let pipeline = Pipeline::new(&[("page", &receiver.url("/"), "retry: { first: 6s }")]);
    let mut process = pipeline.start(&[]).await;
    process.accept(&event("d1", 1.0)).await;
    let waiting = newest(&process, |found| found["attempts"] == 1).await;
    assert_eq!(waiting["status"], "pending");
    process.kill();
    let process = pipeline.start(&[]).await;
    let same = newest(&process, |_| true).await;
    assert_eq!(same["next_attempt_at"], waiting["next_attempt_at"]);
    assert_eq!(receiver.seen().len(), 1, "it does not begin anew");
    let seen = receiver.until(2).await;
    let waited = seen[1].at - seen[0].at;
    assert!((Duration::from_millis(2_900)..Duration::from_mins(1)).contains(&waited), "{waited:?}");
    assert_eq!((seen[0].id(), &seen[0].body), (seen[1].id(), &seen[1].body));
    let done = newest(&process, |found| found["status"] == "delivered").await;
    assert_eq!(done["attempts"], 2);
    process.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_never_answers_holds_up_nobody_else() {
    let hanging = Receiver::start(|_, _| Reply::Hang).await;
    let prompt = Receiver::start(|_, _| Reply::status(200)).await;
    let pipeline = Pipeline::new(&[
        ("prompt", &prompt.url("/"), "concurrency: 16"),
        ("hanging", &hanging.url("/"), "timeout: 2s"),
    ]);
    let mut process = pipeline.start(&[]).await;
    let began = Instant::now();
    let events: Vec<Value> = (0..1_000).map(|n| event(&format!("d{}", n % 50), f64::from(n))).collect();
    let response = process.client.post(format!("{}/api/v1/events/batch", process.ingest)).json(&events).send().await;
    assert_eq!(response.expect("answers").status(), 202);
    process.sql_until("SELECT count(*) AS n FROM newest WHERE value >= 950", |rows| rows[0]["n"] == 50).await;
    let reflected = began.elapsed();
    counted(&process, "delivered", 1_000).await;
    let delivered = began.elapsed();
    eprintln!("reflected after {reflected:?}, delivered to the other after {delivered:?}");
    let action = ask(&process, "/api/v1/actions").await["actions"][1].clone();
    assert_eq!((&action["pending"], &action["delivered"]), (&json!(1_000), &json!(0)), "{action}");
    // Four at a time, and each for two seconds.
    let held = hanging.seen().len() as u64;
    assert!((4..=4 * (delivered.as_secs() / 2 + 2)).contains(&held), "{held}");
    process.assert_balanced().await;
    let began = Instant::now();
    assert!(process.terminate().success());
    // To wait for this receiver would take minutes.
    assert!(began.elapsed() < Duration::from_mins(1), "the end took {:?}", began.elapsed());
}

/// A sink that is added sees what comes from then on, and whoever reads something else from then on counts anew: neither
/// is a rebuild, and the books balance all the same.
#[tokio::test(flavor = "multi_thread")]
async fn webhooks_and_their_streams_can_be_added_and_changed_while_the_books_balance() {
    let receiver = Receiver::start(|_, _| Reply::status(200)).await;
    let pipeline = Pipeline::new(&[]);
    let write = |streams: &str| {
        let text = format!(
            "
pipeline: hooks
events:
  sensor.a: {{ payload: {{ value: double }} }}
  sensor.b: {{ payload: {{ value: double }} }}
sources: {{ api: {{ http: {{}} }} }}
streams:
  warm: SELECT aggregate_id AS device, value FROM sensor.a WHERE value > 1
{streams}
sinks:
  newest: {{ projection: {{ from: sensor.a, key: [aggregate_id] }} }}
  warmest: {{ stdout: {{ from: warm }} }}
"
        );
        let hook = if streams.is_empty() {
            String::new()
        } else {
            format!("  page: {{ webhook: {{ from: hot, url: '{}' }} }}\n", receiver.url("/"))
        };
        std::fs::write(pipeline.file(), text + &hook).expect("written");
    };
    let (mut told, mut number) = (Vec::new(), 0.0);
    for (streams, told_of) in [
        ("", ""),
        ("  hot: SELECT device, value FROM warm", "sensor.a"),
        ("  hot: SELECT aggregate_id AS device, value FROM sensor.b", "sensor.b"),
        (
            "  hotter: SELECT device, value FROM warm WHERE value > 2\n  hot: SELECT device, value FROM hotter",
            "sensor.a",
        ),
        ("", ""),
        ("  hot: SELECT device, value FROM warm", "sensor.a"),
    ] {
        write(streams);
        let mut process = pipeline.start(&[]).await;
        process.assert_balanced().await;
        for kind in ["sensor.a", "sensor.b", "sensor.a"] {
            number += 1.0;
            let mut event = event("d1", 10.0 + number);
            event["event_type"] = json!(kind);
            let id = process.accept(&event).await;
            let reflected = process.get(&format!("/api/v1/projections?after={id}&wait=10s")).await;
            assert_eq!(reflected.0, 200, "{}", reflected.1);
            if kind == told_of {
                told.push(10.0 + number);
            }
        }
        receiver.until(told.len()).await;
        process.assert_balanced().await;
        process.kill();
    }
    let mut heard = values(&receiver.seen());
    heard.sort_by(f64::total_cmp);
    heard.dedup();
    assert_eq!(heard, told);
}
