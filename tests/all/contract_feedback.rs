//! `POST /feedback`.

use serde_json::{Value, json};

use crate::http::{Reply, Request};
use crate::service::{Home, Service, until};
use crate::town::Town;

const INVALID: &str = "Invalid feedback data. 'source', 'proxy', and 'status_code' (int) are required.";
const NO_OBJECT: &str = "Invalid JSON body.";

/// Successes and failures that the service has counted.
async fn counted(service: &Service) -> (u64, u64) {
    let metrics = service.get("/metrics").await.text;
    let sample = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    (sample("smartproxy_requests_success_total"), sample("smartproxy_requests_failure_total"))
}

async fn send_lines(service: &Service, lines: &str) -> Reply {
    let request = Request::post("/feedback").header("Content-Type", "application/x-ndjson; charset=utf-8");
    service.send(request.body(lines)).await
}

async fn post(service: &Service, report: Value) -> Value {
    let reply = service.post("/feedback", report.to_string()).await;
    assert_eq!(reply.status, 200, "{report}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let json = reply.json();
    assert_eq!(json["message"], "Feedback received.");
    json
}

#[tokio::test]
async fn status_0_and_4_are_failures_and_every_other_code_is_a_success() {
    let town = Town::good(1);
    let (_home, service) = town.serve().await;
    let url = &town.urls()[0];
    for status in [200, 404, 503, 1, 5, -1, 999_999] {
        assert_eq!(service.report("default", url, status).await["outcome"], "success", "{status}");
    }
    for status in [0, 4] {
        assert_eq!(service.report("default", url, status).await["outcome"], "failure", "{status}");
    }
    assert_eq!(counted(&service).await, (7, 2));
}

#[tokio::test]
async fn a_report_moves_the_score_and_the_reply_says_where_to() {
    let town = Town::good(1);
    let (_home, service) = town.serve().await;
    let report = |status: i64| json!({ "source": "default", "proxy": town.urls()[0], "status": status, "response_time_ms": 12.5 });
    let mut good = json!(null);
    for _ in 0..4 {
        good = post(&service, report(200)).await;
    }
    assert_eq!(good["scored"], true);
    let shown = service.get("/get-proxy?source=default").await.json();
    assert!((shown["score"].as_f64().unwrap() - good["score"].as_f64().unwrap()).abs() < 2.0);
    let bad = post(&service, report(0)).await;
    assert!(bad["score"].as_f64() < good["score"].as_f64(), "{good} {bad}");
}

#[tokio::test]
async fn an_unknown_pool_counts_under_the_default_one() {
    let town = Town::good(1);
    let ini =
        town.ini().with("sources", "predefined_sources", "shop").with("sources", "default_source", "shop");
    let (_home, service) = town.serve_with(ini).await;
    assert_eq!(service.report("nobody knows", &town.urls()[0], 200).await["scored"], true);
    let today = crate::contract_stats::today();
    let path = format!("/api/stats/daily?source=shop&date={today}");
    until("it is counted", async || service.get(&path).await.json()["total_requests"] == 1).await;
    assert_eq!(service.get("/api/sources").await.json(), json!(["shop"]));
}

#[tokio::test]
async fn a_proxy_that_is_not_known_is_counted_and_not_scored() {
    let town = Town::good(1);
    let (_home, service) = town.serve().await;
    for proxy in ["http://127.9.9.9:9", "nonsense", "http://", "ftp://127.0.0.1:1"] {
        let reply = service.report("default", proxy, 200).await;
        assert_eq!((&reply["scored"], &reply["score"]), (&json!(false), &json!(null)), "{proxy}");
    }
    assert_eq!(counted(&service).await, (4, 0));
    assert_eq!(service.get("/health").await.json()["known_proxies"], 1);
}

#[tokio::test]
async fn every_kind_of_failure_is_a_failure_whatever_the_status() {
    let town = Town::good(1);
    let (_home, service) = town.serve().await;
    for kind in ["timeout", "proxy_error", "dead", "blocked", "slow", "content_error"] {
        let report =
            json!({ "source": "default", "proxy": town.urls()[0], "status": 200, "failure_kind": kind });
        assert_eq!(post(&service, report).await["outcome"], "failure", "{kind}");
    }
    assert_eq!(counted(&service).await, (0, 6));
}

#[tokio::test]
async fn a_report_with_an_id_counts_once() {
    let town = Town::good(1);
    let (_home, service) = town.serve().await;
    let report = |id: &str| json!({ "source": "default", "proxy": town.urls()[0], "status": 200, "id": id });
    assert_eq!(post(&service, report("a")).await["outcome"], "success");
    for _ in 0..3 {
        let repeat = post(&service, report("a")).await;
        assert_eq!(repeat["scored"], false, "{repeat}");
    }
    post(&service, report("b")).await;
    assert_eq!(counted(&service).await, (2, 0));
}

#[tokio::test]
async fn fields_that_old_clients_send_are_taken_as_they_come() {
    let town = Town::good(1);
    let (_home, service) = town.serve().await;
    for extra in [
        json!({ "response_time_ms": null }),
        json!({ "response_time_ms": -1 }),
        json!({ "response_time_ms": 0 }),
        json!({ "response_time_ms": 1e300 }),
        json!({ "failure_kind": null, "id": null }),
        json!({ "something": { "new": [1, 2] } }),
    ] {
        let mut report = json!({ "source": "default", "proxy": town.urls()[0], "status": 200 });
        report.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        assert_eq!(post(&service, report).await["scored"], true, "{extra}");
    }
}

#[tokio::test]
async fn a_malformed_report_is_refused_and_counts_nothing() {
    let town = Town::good(1);
    let (_home, service) = town.serve().await;
    let proxy = &town.urls()[0];
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let no_object: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" ".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"[1]".to_vec(),
        b"\"text\"".to_vec(),
        b"7".to_vec(),
        b"true".to_vec(),
        b"{".to_vec(),
        b"{}x".to_vec(),
        b"{\"source\":\"default\",}".to_vec(),
        b"{'source':'default'}".to_vec(),
        b"source=default".to_vec(),
        b"\xff\xfe".to_vec(),
        b"\0".to_vec(),
        deep.into_bytes(),
        format!(r#"{{"source":"default","proxy":"{proxy}","status":200,"response_time_ms":NaN}}"#)
            .into_bytes(),
        format!(r#"{{"source":"default","proxy":"{proxy}","status":200,"response_time_ms":1e999}}"#)
            .into_bytes(),
        b"{\"source\":\"\xff\",\"proxy\":\"a\",\"status\":1}".to_vec(),
        b"{\"source\":\"\\ud800\",\"proxy\":\"a\",\"status\":1}".to_vec(),
    ];
    for body in no_object {
        let reply = service.post("/feedback", &body).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        assert_eq!((reply.status, reply.error()), (400, NO_OBJECT.to_owned()), "{shown}");
    }
    let mut invalid = vec![json!({})];
    for field in ["source", "proxy", "status"] {
        for value in [None, Some(json!(null)), Some(json!([])), Some(json!({})), Some(json!(true))] {
            let mut report = json!({ "source": "default", "proxy": proxy, "status": 200 });
            let fields = report.as_object_mut().unwrap();
            match value {
                None => drop(fields.remove(field)),
                Some(value) => drop(fields.insert(field.to_owned(), value)),
            }
            invalid.push(report);
        }
    }
    for (field, value) in [
        ("source", json!(7)),
        ("source", json!("")),
        ("proxy", json!(7)),
        ("proxy", json!("")),
        ("status", json!("200")),
        ("status", json!(200.5)),
        ("status", json!(u64::MAX)),
    ] {
        let mut report = json!({ "source": "default", "proxy": proxy, "status": 200 });
        report[field] = value;
        invalid.push(report);
    }
    for report in invalid {
        let reply = service.post("/feedback", report.to_string()).await;
        assert_eq!((reply.status, reply.error()), (400, INVALID.to_owned()), "{report}");
    }
    for (field, value) in [
        ("response_time_ms", json!("12")),
        ("response_time_ms", json!([])),
        ("response_time_ms", json!(false)),
        ("failure_kind", json!("tired")),
        ("failure_kind", json!("Timeout")),
        ("failure_kind", json!(3)),
        ("id", json!(3)),
        ("id", json!({})),
        ("id", json!("x".repeat(2000))),
        ("source", json!("x".repeat(2000))),
    ] {
        let mut report = json!({ "source": "default", "proxy": proxy, "status": 200 });
        report[field] = value;
        let reply = service.post("/feedback", report.to_string()).await;
        assert_eq!(reply.status, 400, "{report}");
        assert!(reply.error().contains(&format!("'{field}'")), "{report}: {}", reply.error());
    }
    let huge = json!({ "source": "default", "proxy": proxy, "status": 200, "note": "x".repeat(100_000) });
    let reply = service.post("/feedback", huge.to_string()).await;
    assert_eq!(reply.status, 413);
    assert!(reply.error().contains("larger"), "{reply:?}");
    let twice = format!(r#"{{"source":"default","source":"default","proxy":"{proxy}","status":200}}"#);
    assert_eq!(service.post("/feedback", twice).await.status, 400);

    assert_eq!(counted(&service).await, (0, 0));
    assert_eq!(service.get("/get-proxy?source=default").await.json()["tier"], "live");
}

#[tokio::test]
async fn many_reports_in_one_body_are_judged_line_by_line() {
    let town = Town::good(1);
    let (_home, service) = town.serve().await;
    let good = json!({ "source": "default", "proxy": town.urls()[0], "status": 200 });
    let once = json!({ "source": "default", "proxy": town.urls()[0], "status": 0, "id": "n1" });
    let lines = format!("{good}\n\n{once}\r\nnull\n{once}\n{{\"source\":1}}\n   \n{good}");
    let reply = send_lines(&service, &lines).await;
    assert_eq!(reply.status, 200);
    let json = reply.json();
    assert_eq!(json["accepted"], 4, "{json}");
    let rejected = json!([{ "line": 4, "error": NO_OBJECT }, { "line": 6, "error": INVALID }]);
    assert_eq!(json["rejected"], rejected);
    assert_eq!(counted(&service).await, (2, 1));

    for empty in ["", "\n\n"] {
        assert_eq!(send_lines(&service, empty).await.json(), json!({ "accepted": 0, "rejected": [] }));
    }
    let many = format!("{good}\n").repeat(5000);
    assert_eq!(send_lines(&service, &many).await.json()["accepted"], 5000);
    assert_eq!(counted(&service).await, (5002, 1));
    let too_many = "x\n".repeat(5_000_000);
    assert_eq!(send_lines(&service, &too_many).await.status, 413);
    let wrong = "x\n".repeat(1500);
    let json = send_lines(&service, &wrong).await.json();
    assert_eq!(json["rejected"].as_array().unwrap().len(), 1000, "a bounded answer");
    assert_eq!(counted(&service).await, (5002, 1));
}

#[tokio::test]
async fn a_wrong_method_is_a_405_that_says_so_in_json() {
    let service = Home::new(&crate::ini::Ini::quick()).start().await;
    for (method, path) in [("GET", "/feedback"), ("POST", "/get-proxy?source=a"), ("DELETE", "/health")] {
        let reply = service.send(Request::new(method, path)).await;
        assert_eq!(reply.status, 405, "{method} {path}");
        assert!(reply.error().contains(method), "{reply:?}");
    }
}
