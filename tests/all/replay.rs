//! `[logging] events` and `smartproxy replay`.

use serde_json::{Value, json};

use crate::service::{Home, until};
use crate::town::Town;

fn events(home: &Home) -> Vec<Value> {
    let text = std::fs::read_to_string(home.path("data/events.ndjson")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn what_the_service_recorded_is_replayed_and_holds_no_login() {
    let town = Town::good(4);
    let ini = town.ini().with("logging", "events", "./data/events.ndjson");
    let (home, service) = town.serve_with(ini).await;
    service.wait_for_live(4).await;
    let bad = town.urls()[0].clone();
    let mut reported = 0;
    while reported < 60 {
        let proxy =
            service.get("/get-proxy?source=default").await.json()["http"].as_str().unwrap().to_owned();
        service.report("default", &proxy, if proxy == bad { 0 } else { 200 }).await;
        service.report("default", &bad, 0).await;
        reported += 2;
    }
    let metrics = service.get("/metrics").await.text;
    assert!(metrics.contains("smartproxy_events_dropped_total 0"), "{metrics}");
    assert_eq!(service.stop().await, 0);

    let lines = events(&home);
    let count = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!((count("handout"), count("outcome")), (30, 60), "a stop loses nothing");
    assert!(count("probe") >= 4);
    let handout = lines.iter().find(|line| line["event"] == "handout").unwrap();
    assert!(handout["score"].as_f64().is_some() && handout["tier"].is_string(), "{handout}");

    let ran = home.run(&["replay", "data/events.ndjson", "--json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&told["handouts"], &told["outcomes"], &told["broken_lines"]),
        (&json!(30), &json!(60), &json!(0))
    );
    let adaptive = &told["strategies"]["adaptive"];
    let loss = |name: &str| told["strategies"][name]["log_loss"].as_f64().unwrap();
    assert!(loss("adaptive") < loss("uniform"), "{told}");
    assert!(adaptive["auc"].as_f64().unwrap() > 0.8, "{told}");
    assert!(told["strategies"]["tiered"]["log_loss"].is_null(), "points are no chances: {told}");

    // A line cut off by a crash, and a table with its caveats.
    let whole = home.read("data/events.ndjson");
    home.write("data/events.ndjson", format!("{whole}{{\"at_ms\":1,\"ev"));
    let ran = home.run(&["replay", "data/events.ndjson", "--strategy", "adaptive,tiered"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("1 of "), "{ran:?}");
    assert!(ran.stdout.contains("tiered") && !ran.stdout.contains("softmax"), "{ran:?}");
    assert!(ran.stdout.contains("do not tell"), "{ran:?}");
}

#[tokio::test]
async fn events_of_proxies_with_a_login_tell_logins_apart_and_do_not_show_them() {
    let town = Town::good(1);
    let ini = town.ini().with("logging", "events", "./data/events.ndjson");
    let home = Home::new(&ini);
    home.write("paid.txt", "http://jo:s3cret@127.0.0.1:9\nhttp://al:s3cret@127.0.0.1:9\n");
    let ran = home.run(&["import", "paid.txt"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let service = home.start().await;
    for user in ["jo", "al"] {
        service.report("default", &format!("http://{user}:s3cret@127.0.0.1:9"), 0).await;
    }
    until("both reports are recorded", async || {
        events(&home).iter().filter(|line| line["event"] == "outcome").count() == 2
    })
    .await;
    let mut names: Vec<String> = events(&home)
        .iter()
        .filter(|line| line["event"] == "outcome")
        .map(|line| line["proxy"].as_str().unwrap().to_owned())
        .collect();
    names.dedup();
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|name| name.starts_with("http://127.0.0.1:9#")), "{names:?}");
    let text = home.read("data/events.ndjson");
    assert!(!text.contains("s3cret") && !text.contains("jo:") && !text.contains("al:"), "{text}");
    assert_eq!(service.stop().await, 0);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_said_once_and_the_service_goes_on() {
    let town = Town::good(2);
    // Its folder is a file.
    let ini = town.ini().with("logging", "events", "./config.ini/events.ndjson");
    let (_home, service) = town.serve_with(ini).await;
    service.wait_for_live(2).await;
    service.wait_for_log("cannot be written, events are lost").await;
    let url = &town.urls()[0];
    for _ in 0..20 {
        service.report("default", url, 200).await;
    }
    let lost = service.log().matches("events are lost").count();
    assert_eq!(lost, 1, "{}", service.log());
    until("lost events are counted", async || {
        let metrics = service.get("/metrics").await.text;
        let line = metrics.lines().find(|line| line.starts_with("smartproxy_events_dropped_total")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() >= 20
    })
    .await;
    assert_eq!(service.get("/get-proxy?source=default").await.status, 200);
    assert_eq!(service.stop().await, 0);
}

#[tokio::test]
async fn replay_names_what_is_wrong_with_a_file() {
    let home = Home::empty();
    home.write("page.html", "<html>\n<body>\n");
    for (file, code, said) in
        [("missing.ndjson", 1, "missing.ndjson"), ("page.html", 2, "no line of it is an event")]
    {
        let ran = home.run(&["replay", file]).await;
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.stderr.contains(said), "{ran:?}");
    }
}
