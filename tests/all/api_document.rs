//! `/openapi.json` against what the service answers, and `/docs`.

use serde_json::{Value, json};

use crate::service::Service;
use crate::town::Town;

/// Whether `value` is as `schema` of `document` says; nothing that is not documented may be there.
fn check(document: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let named = document.pointer(reference.trim_start_matches('#')).unwrap();
        return check(document, named, value, place);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let results: Vec<_> = choices.iter().map(|one| check(document, one, value, place)).collect();
        return match results.iter().filter(|result| result.is_ok()).count() {
            1 => Ok(()),
            n => Err(format!("{place}: fits {n} of the choices: {results:?}")),
        };
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return Err(format!("{place}: the document gives no type")),
    };
    let is = |kind: &str| match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{place}: unknown type {other}"),
    };
    if !types.iter().any(|kind| is(kind)) {
        return Err(format!("{place}: {value} is none of {types:?}"));
    }
    if schema["enum"].as_array().is_some_and(|known| !known.contains(value)) {
        return Err(format!("{place}: {value} is none of {}", schema["enum"]));
    }
    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
        check(document, &schema["items"], item, &format!("{place}[{at}]"))?;
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            return Err(format!("{place}: {name} is missing"));
        }
    }
    let properties = schema["properties"].as_object();
    for (name, field) in value.as_object().into_iter().flatten() {
        let place = format!("{place}.{name}");
        match properties.and_then(|known| known.get(name)) {
            Some(known) => check(document, known, field, &place)?,
            None if schema["additionalProperties"].is_object() => {
                check(document, &schema["additionalProperties"], field, &place)?;
            }
            None if properties.is_none() => {}
            None => return Err(format!("{place}: is not documented")),
        }
    }
    Ok(())
}

struct Checked<'a> {
    document: Value,
    service: &'a Service,
}

impl Checked<'_> {
    async fn answer(&self, method: &'static str, path: &str, body: &str, status: u16) -> Value {
        let request =
            crate::http::Request::new(method, path).header("Content-Type", "application/json").body(body);
        let reply = self.service.send(request).await;
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        let bare = path.split('?').next().unwrap();
        let response = &self.document["paths"][bare][method.to_lowercase()]["responses"][status.to_string()];
        let kind = reply.header("content-type").unwrap().split(';').next().unwrap().to_owned();
        let content = &response["content"][&kind];
        assert!(content.is_object(), "{method} {path} {status}: {kind} is not documented");
        if kind != "application/json" {
            return Value::Null;
        }
        let json = reply.json();
        check(&self.document, &content["schema"], &json, &format!("{method} {path}")).unwrap();
        json
    }
}

#[tokio::test]
async fn every_documented_call_answers_as_the_document_says() {
    let town = Town::good(3);
    let ini = town
        .ini()
        .with("sources", "predefined_sources", "shop")
        .with("source_pool", "premium_min_usage_count", 3)
        .with("pool_old", "selection_strategy", "tiered");
    let (_home, service) = town.serve_with(ini).await;
    let document = service.get("/openapi.json").await.json();
    let checked = Checked { document, service: &service };
    let url = &town.urls()[0];
    let feedback =
        json!({ "source": "shop", "proxy": url, "status": 200, "response_time_ms": 20 }).to_string();
    for _ in 0..5 {
        checked.answer("POST", "/feedback", &feedback, 200).await;
    }
    checked.answer("POST", "/feedback", "[]", 400).await;
    let today = "2026-01-01";
    let explain = format!("/api/explain?source=shop&proxy={url}");
    let tiered = format!("/api/explain?source=old&proxy={url}");
    let calls = [
        ("GET", "/get-proxy?source=shop", 200),
        ("GET", "/get-proxy?source=shop&session=a", 200),
        ("GET", "/get-proxy?source=shop&count=2", 200),
        ("GET", "/get-proxy", 400),
        ("GET", "/get-proxy?source=shop&protocol=socks4", 404),
        ("GET", "/get-premium-proxy", 200),
        ("GET", "/live", 200),
        ("GET", "/ready", 200),
        ("GET", "/health", 200),
        ("GET", "/metrics", 200),
        ("GET", "/api/sources", 200),
        ("GET", &format!("/api/stats/daily?source=shop&date={today}"), 200),
        ("GET", "/api/stats/daily", 400),
        ("GET", &format!("/api/stats/timeseries?source=shop&date={today}&fill=1"), 200),
        ("GET", &format!("/api/stats/overview?date={today}"), 200),
        ("GET", "/api/proxies", 200),
        ("GET", "/api/proxies?sort=age", 400),
        ("GET", "/api/proxies?source=nobody", 404),
        ("GET", "/api/feeds", 200),
        ("GET", "/api/pools", 200),
        ("GET", &explain, 200),
        ("GET", &tiered, 200),
        ("GET", "/api/explain?source=nobody&proxy=http://127.0.0.1:1", 404),
        ("GET", "/api/overview", 200),
        ("GET", "/api/log?limit=5", 200),
        ("GET", "/api/log?limit=many", 400),
        ("GET", "/api/pool?source=shop", 200),
        ("GET", "/api/pool?source=nobody", 404),
        ("GET", &format!("/api/proxy?proxy={url}"), 200),
        ("GET", "/api/proxy?proxy=http://127.0.0.1:1", 404),
        ("GET", "/api/bans", 200),
        ("GET", "/api/sessions?source=shop", 200),
        ("DELETE", "/api/sessions?source=shop&session=a", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
        ("POST", "/backup-stats", 200),
        ("POST", "/reload-sources", 200),
    ];
    for (method, path, status) in calls {
        checked.answer(method, path, "", status).await;
    }
    let proxies = json!({ "proxies": [url], "source": "shop" }).to_string();
    let bodies = [
        ("POST", "/api/actions/probe", json!({ "proxies": [url] }).to_string(), 200),
        ("POST", "/api/actions/ban", proxies.clone(), 200),
        ("POST", "/api/actions/forgive", proxies, 200),
        ("POST", "/api/actions/forgive", "{}".to_owned(), 400),
        ("POST", "/api/actions/fetch", json!({ "feed": "list" }).to_string(), 200),
        ("POST", "/api/actions/fetch", json!({ "feed": "nobody" }).to_string(), 404),
    ];
    for (method, path, body, status) in &bodies {
        checked.answer(method, path, body, *status).await;
    }
    // Nothing in the document was forgotten here, but for a stream that does not end.
    let called: Vec<_> = calls.iter().map(|(method, path, _)| (*method, *path)).collect();
    let called: Vec<_> = called
        .into_iter()
        .chain(bodies.iter().map(|(method, path, ..)| (*method, *path)))
        .chain([("POST", "/feedback"), ("GET", "/api/events")])
        .collect();
    for (path, methods) in checked.document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let is_called = |(called, with): &(&str, &str)| {
                called.eq_ignore_ascii_case(method) && with.split('?').next() == Some(path)
            };
            assert!(called.iter().any(is_called), "{method} {path} was not called");
        }
    }
}

#[tokio::test]
async fn the_page_of_the_api_loads_nothing_from_elsewhere() {
    let service = crate::service::Home::new(&crate::ini::Ini::quick()).start().await;
    let page = service.get("/docs").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert!(page.text.contains("GET /api/explain"), "{}", page.text);
    for word in ["<script", "src=", "http://fonts", "https://", "@import"] {
        assert!(!page.text.contains(word), "{word}");
    }
}
