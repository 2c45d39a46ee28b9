//! `GET /openapi.json`: the whole API as a document, and `GET /docs`: the same to read.
//!
//! The document is kept by hand in `openapi.json`; tests compare it with the routes and with real answers.

use std::fmt::Write as _;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::page::{POLICY, STYLE, escape};

/// The document, as text.
const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn openapi() -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], DOCUMENT).into_response()
}

pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, html(&serde_json::from_str(DOCUMENT).unwrap_or_default())).into_response()
}

fn html(document: &Value) -> String {
    let mut operations = String::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            write_operation(&mut operations, path, method, operation);
        }
    }
    let info = &document["info"];
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>SmartProxy API</title>\
         <meta name=viewport content='width=device-width,initial-scale=1'><style>{STYLE}pre{{overflow:auto;\
         background:#8882;padding:.6rem}}h2{{margin-top:2.5rem}}</style></head><body><h1>{title}</h1><p>{text}</p>\
         <p>The same for programs: <a href='/openapi.json'>/openapi.json</a> (OpenAPI {version}).</p>{operations}\
         </body></html>",
        title = text_of(&info["title"]),
        text = text_of(&info["description"]),
        version = text_of(&document["openapi"]),
    )
}

fn write_operation(out: &mut String, path: &str, method: &str, operation: &Value) {
    let _ = write!(
        out,
        "<h2><code>{} {}</code></h2><p>{} {}</p>",
        method.to_uppercase(),
        escape(path),
        text_of(&operation["summary"]),
        text_of(&operation["description"])
    );
    let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
    if !parameters.is_empty() {
        out.push_str("<table><tr><th>Parameter</th><th>Meaning</th></tr>");
        for parameter in parameters {
            let required = if parameter["required"] == true { " (required)" } else { "" };
            let _ = write!(
                out,
                "<tr><td><code>{}</code>{required}</td><td>{}</td></tr>",
                text_of(&parameter["name"]),
                text_of(&parameter["description"])
            );
        }
        out.push_str("</table>");
    }
    for body in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        let _ = write!(out, "<p>Body: <code>{}</code></p>", escape(body.0));
        write_example(out, &body.1["example"]);
    }
    out.push_str("<table><tr><th>Status</th><th>Reply</th></tr>");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let _ =
            write!(out, "<tr><td>{}</td><td>{}</td></tr>", escape(status), text_of(&response["description"]));
    }
    out.push_str("</table>");
    write_example(out, &operation["responses"]["200"]["content"]["application/json"]["example"]);
}

fn write_example(out: &mut String, example: &Value) {
    let text = match example {
        Value::Null => return,
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    };
    let _ = write!(out, "<pre>{}</pre>", escape(&text));
}

fn text_of(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::ROUTES;
    use super::*;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    #[test]
    fn the_document_names_every_route_and_no_other() {
        let document = document();
        let documented: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(|method| (method.clone(), path.clone()))
            })
            .collect();
        let routed = ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
        assert_eq!(documented, routed);
    }

    #[test]
    fn every_operation_says_what_it_is_for_and_what_it_answers() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut ids = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let place = format!("{method} {path}");
                assert!(operation["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{place}");
                assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{place}");
                let responses = operation["responses"].as_object().unwrap();
                assert!(responses.contains_key("200"), "{place}");
                assert!(responses.values().all(|response| response["description"].is_string()), "{place}");
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    assert_eq!(parameter["in"], "query", "{place}");
                    assert!(
                        parameter["description"].is_string() && parameter["schema"].is_object(),
                        "{place}"
                    );
                }
            }
        }
    }

    #[test]
    fn references_lead_somewhere() {
        fn check(document: &Value, value: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(reference)) = fields.get("$ref") {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                    }
                    fields.values().for_each(|value| check(document, value));
                }
                Value::Array(items) => items.iter().for_each(|value| check(document, value)),
                _ => {}
            }
        }
        let document = document();
        check(&document, &document);
    }

    #[test]
    fn the_page_shows_every_operation_and_loads_nothing() {
        let page = html(&document());
        for (method, path) in ROUTES {
            assert!(page.contains(&format!("<code>{} {path}</code>", method.to_uppercase())), "{path}");
        }
        assert!(!page.contains("<script") && !page.contains("src="));
    }
}
