//! The alerter from the log to Telegram and webhooks, through outages, refusals and crashes.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod support;

use std::time::{Duration, Instant};

use alerter::samples;
use eventlog::EventLog as _;
use events::{Alert, topics};
use support::{Answer, System, TOKEN, eventually, on_card};

const DELIVERIES: &str = "paystream_alerter_deliveries_total";

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_recorded_before_it_is_sent() {
    let mut system = System::new().await;
    system.server.answer(Answer::Hang);
    let running = system.start();
    let alert = samples::alert(1);
    system.publish(std::slice::from_ref(&alert)).await;
    let server = system.server.clone();
    eventually("the first attempt", || !server.calls().is_empty()).await;
    running.crash().await;
    system.lose_log().await;
    system.server.answer(Answer::Ok);
    let running = system.start();
    eventually("delivery from the record alone", || server.messages_about(&alert) == 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_and_a_crash_in_the_middle_of_it_lose_no_alert() {
    let system = System::new().await;
    let alerts: Vec<Alert> = (0..30).map(on_card).collect();
    for outage in [Answer::ServerError, Answer::Hang] {
        system.server.answer_once(outage);
    }
    system.server.answer(Answer::Refused("Internal Server Error"));
    let running = system.start();
    system.publish(&alerts[..20]).await;
    eventually("failed attempts", || running.metric(DELIVERIES, "failed") >= 8.0).await;
    running.crash().await;
    system.publish(&alerts[20..]).await;
    let running = system.start();
    eventually("failed attempts again", || running.metric(DELIVERIES, "failed") >= 8.0).await;
    assert_eq!(system.server.taken("SendMessage").len(), 0);
    system.server.answer(Answer::Ok);
    let told = |alert: &Alert| system.server.messages_about(alert) == 1;
    eventually("all 30 delivered, each once", || alerts.iter().all(told)).await;
    running.stop().await;
    assert_eq!(system.server.taken("SendMessage").len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_sending_and_noting_it_causes_one_duplicate_at_most() {
    let mut system = System::new().await;
    system.config.telegram.request_timeout_ms = 60_000;
    let alerts: Vec<Alert> = (0..3).map(on_card).collect();
    system.server.answer_once(Answer::Ok);
    system.server.answer(Answer::TakeAndHang);
    let running = system.start();
    system.publish(&alerts).await;
    let server = &system.server;
    eventually("a message taken but not confirmed", || server.taken("SendMessage").len() == 2).await;
    running.crash().await;
    server.answer(Answer::Ok);
    let running = system.start();
    eventually("all told", || alerts.iter().all(|a| server.messages_about(a) > 0)).await;
    running.stop().await;
    let duplicates = server.taken("SendMessage").len() - alerts.len();
    assert_eq!(duplicates, 1, "the one that was on its way, and no other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_alerts_on_one_card_are_one_message_with_the_right_count() {
    let system = System::new().await;
    let running = system.start();
    let started = Instant::now();
    for n in 0..20 {
        let alerts: Vec<Alert> = (0..5).map(|i| samples::alert(n * 5 + i)).collect();
        system.publish(&alerts).await;
    }
    let server = &system.server;
    let told =
        || server.taken("EditMessageText").last().is_some_and(|edit| edit.text().contains("100 alerts"));
    eventually("the message counts 100", told).await;
    let most = started.elapsed().as_millis() / u128::from(system.config.update_interval_ms) + 1;
    running.stop().await;
    let sent = server.taken("SendMessage");
    let edits = server.taken("EditMessageText");
    assert_eq!(sent.len(), 1);
    assert!(edits.len() as u128 <= most, "{} edits, at most {most} allowed", edits.len());
    assert!(edits.iter().all(|edit| edit.body["message_id"] == 1), "all of the one message");
    assert!(edits.last().unwrap().text().contains("10050.00 USD in all"));
}

#[tokio::test(flavor = "multi_thread")]
async fn telegram_asking_to_wait_is_obeyed_and_the_message_still_comes() {
    let system = System::new().await;
    system.server.answer_once(Answer::TooMany { retry_after_s: 1 });
    let running = system.start();
    let alerts = [on_card(1), on_card(2)];
    system.publish(&alerts).await;
    let server = &system.server;
    eventually("both delivered", || alerts.iter().all(|a| server.messages_about(a) == 1)).await;
    let calls = server.calls();
    assert!(calls[1].at - calls[0].at >= Duration::from_secs(1), "no call of any kind until then");
    assert_eq!(running.metric(DELIVERIES, "throttled") as u32, 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_chat_is_counted_kept_and_delivered_after_it_was_corrected() {
    let system = System::new().await;
    system.server.answer(Answer::Refused("Bad Request: chat not found"));
    let running = system.start();
    let alert = on_card(1);
    system.publish(std::slice::from_ref(&alert)).await;
    eventually("the refusal counts", || running.metric(DELIVERIES, "refused") > 0.0).await;
    running.stop().await;
    assert_eq!(system.server.calls().len(), 1, "it is not tried again and again");
    system.server.answer(Answer::Ok);
    let running = system.start();
    eventually("delivered", || system.server.messages_about(&alert) == 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_comes_twice_from_the_log_is_delivered_once() {
    let system = System::new().await;
    let running = system.start();
    let (first, second) = (on_card(1), on_card(2));
    system.publish(&[first.clone(), first.clone()]).await;
    let server = &system.server;
    eventually("delivered", || server.messages_about(&first) == 1).await;
    running.crash().await;
    let running = system.start();
    system.publish(&[first.clone(), second.clone()]).await;
    eventually("the next is delivered", || server.messages_about(&second) == 1).await;
    running.stop().await;
    assert_eq!(server.messages_about(&first), 1);
    assert_eq!(server.taken("EditMessageText").len(), 0, "and counted once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecodable_record_becomes_a_dead_letter_and_stops_nothing() {
    let system = System::new().await;
    let running = system.start();
    system.publish_raw("{\"type\":\"alert\",\"v\":99,\"data\":{}}").await;
    let alert = on_card(1);
    system.publish(std::slice::from_ref(&alert)).await;
    eventually("the next is delivered", || system.server.messages_about(&alert) == 1).await;
    eventually("counted", || running.metric("paystream_alerter_dead_letters_total", "") as u32 == 1).await;
    running.stop().await;
    let topic = topics::dead_letter(topics::ALERTS);
    let mut letters = Vec::new();
    for partition in 0..system.log.partitions(topic).unwrap() {
        letters.extend(system.log.read(topic, partition, 0, 10, Duration::ZERO).await.unwrap());
    }
    assert_eq!(letters.len(), 1);
    let header = |name: &str| {
        let found = letters[0].headers.iter().find(|(header, _)| header == name);
        String::from_utf8(found.unwrap_or_else(|| panic!("no header {name}")).1.to_vec()).unwrap()
    };
    assert_eq!(header("original-topic"), topics::ALERTS);
    assert_eq!(header("original-offset"), "0");
    assert!(header("reason").contains("version 99 is unknown"), "{}", header("reason"));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_records_what_is_readable_and_tries_once_more_what_waits() {
    let mut system = System::new().await;
    system.config.retry.min_delay_ms = 60_000;
    system.config.retry.max_delay_ms = 60_000;
    system.server.answer(Answer::Refused("Internal Server Error"));
    let running = system.start();
    let alert = on_card(1);
    system.publish(std::slice::from_ref(&alert)).await;
    eventually("a failed attempt", || running.metric(DELIVERIES, "failed") > 0.0).await;
    system.server.answer(Answer::Ok);
    let late = on_card(2);
    system.publish(std::slice::from_ref(&late)).await;
    running.stop().await;
    assert_eq!(system.server.messages_about(&alert), 1, "a minute before its time");
    assert_eq!(system.server.messages_about(&late), 1);
    for partition in 0..system.log.partitions(topics::ALERTS).unwrap() {
        let (_, end) = system.log.bounds(topics::ALERTS, partition).await.unwrap();
        let committed = system.log.committed("alerter", topics::ALERTS, partition).await.unwrap();
        assert_eq!(committed.unwrap_or(0), end, "the log knows that all was read");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_during_an_outage_ends_in_time_and_keeps_the_messages() {
    let mut system = System::new().await;
    system.config.telegram.request_timeout_ms = 60_000;
    system.config.drain_deadline_ms = 500;
    system.server.answer(Answer::Hang);
    let running = system.start();
    let alert = on_card(1);
    system.publish(std::slice::from_ref(&alert)).await;
    eventually("an attempt that hangs", || !system.server.calls().is_empty()).await;
    running.stop().await;
    system.server.answer(Answer::Ok);
    let running = system.start();
    eventually("delivered", || system.server.messages_about(&alert) == 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_deleted_is_replaced_by_a_new_one() {
    let system = System::new().await;
    let running = system.start();
    system.publish(&[samples::alert(1)]).await;
    let server = &system.server;
    eventually("sent", || server.taken("SendMessage").len() == 1).await;
    server.answer_once(Answer::Refused("Bad Request: message to edit not found"));
    system.publish(&[samples::alert(2)]).await;
    eventually("sent anew", || server.taken("SendMessage").len() == 2).await;
    assert!(server.taken("SendMessage")[1].text().contains("2 alerts"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_telegram_gets_is_html_with_every_value_escaped() {
    let system = System::new().await;
    let running = system.start();
    let mut alert = on_card(1);
    alert.reasons[0].message = "<b>7</b> & \"more\" <a href=x>".into();
    system.publish(std::slice::from_ref(&alert)).await;
    eventually("sent", || system.server.messages_about(&alert) == 1).await;
    running.stop().await;
    let sent = system.server.taken("SendMessage").remove(0);
    assert_eq!(sent.body["parse_mode"], "HTML");
    assert_eq!(sent.body["chat_id"], -1001);
    assert!(
        sent.text().contains("&lt;b&gt;7&lt;/b&gt; &amp; &quot;more&quot; &lt;a href=x&gt;"),
        "{}",
        sent.text()
    );
    let link = format!("<a href=\"https://pay.example.com/#{}\">", alert.transaction_id);
    assert!(sent.text().contains(&link), "{}", sent.text());
    assert!(sent.body["reply_markup"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_signed_json_and_is_retried_with_the_same_id() {
    let mut system = System::new().await;
    let yaml = "receivers:\n  desk:\n    webhook:\n      url: URL/hook\n      secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\nroutes:\n  - name: all\n    receivers: [desk]\n";
    system.route(&yaml.replace("URL", &system.server.url));
    system.server.answer_once(Answer::ServerError);
    let running = system.start();
    system.publish(&[samples::alert(1)]).await;
    let server = &system.server;
    eventually("posted", || server.taken("hook").len() == 1).await;
    system.publish(&[samples::alert(2)]).await;
    eventually("posted again", || server.taken("hook").len() == 2).await;
    running.stop().await;
    let calls = server.calls();
    assert_eq!(calls.len(), 3);
    let header = |i: usize, name: &str| calls[i].headers[name].to_str().unwrap().to_owned();
    assert_eq!(header(0, "webhook-id"), header(1, "webhook-id"), "a retry is recognisable");
    assert_ne!(header(1, "webhook-id"), header(2, "webhook-id"), "an update is not a retry");
    assert!(header(1, "webhook-signature").starts_with("v1,"));
    assert_eq!(calls[1].body["group"]["count"], 1);
    assert_eq!((&calls[2].body["group"]["count"], &calls[2].body["update"]), (&2.into(), &true.into()));
    assert!(!calls.iter().any(|call| call.method == "SendMessage"), "the route does not name telegram");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_alerts_go_to_the_console_and_telegram_is_never_called() {
    let mut system = System::new().await;
    system.config.telegram = alerter::AlerterConfig::default().telegram;
    system.config.telegram.api_url = system.server.url.clone();
    let running = system.start();
    system.publish(&[on_card(1)]).await;
    eventually("on the console", || running.metric(DELIVERIES, "console") as u32 == 1).await;
    running.stop().await;
    assert_eq!(system.server.calls().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metric_or_an_error_never_holds_the_token() {
    let mut system = System::new().await;
    system.config.telegram.api_url = "http://127.0.0.1:1".into();
    let running = system.start();
    system.publish(&[on_card(1)]).await;
    eventually("a failed attempt", || running.metric(DELIVERIES, "failed") > 0.0).await;
    let shown = format!("{:?} {:?}", running.registry.gather(), system.config);
    assert!(!shown.contains(TOKEN.split_once(':').unwrap().1), "{shown}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_cannot_be_read_refuse_the_start_and_name_the_line() {
    let mut system = System::new().await;
    system.route("routes:\n  - name: all\n    receivers: [pager]\n");
    let log = system.log.clone();
    let registry = prometheus::Registry::new();
    let dir = system.dir.path().join("alerter");
    let error = alerter::Alerter::start(system.config.clone(), log, &dir, &registry).unwrap_err();
    assert!(error.to_string().contains("line 3: receiver `pager` is not defined"), "{error}");
}
