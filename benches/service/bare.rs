//! The least that the API could cost: plain axum that reads the same input and answers a constant of the same length.

use std::borrow::Cow;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::process::Outcome;

const HANDOUT: &str = r#"{"http":"http://198.51.100.77:31280","https":"http://198.51.100.77:31280","protocol":"http","source":"alpha","score":93.7,"tier":"proven"}"#;
const RECORDED: &str = r#"{"message":"Feedback received.","scored":true,"outcome":"success","score":94.1}"#;

#[derive(Deserialize)]
struct HandoutQuery {
    source: Option<String>,
    count: Option<String>,
    protocol: Option<String>,
    country: Option<String>,
    anonymity: Option<String>,
    https: Option<String>,
    min_score: Option<String>,
    exclude: Option<String>,
    session: Option<String>,
    session_ttl_s: Option<String>,
}

#[derive(Deserialize)]
struct ReportBody<'a> {
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    proxy: Cow<'a, str>,
    status: i64,
    response_time_ms: Option<f64>,
    #[serde(borrow)]
    failure_kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
}

pub(crate) fn serve(address: &str) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let app = Router::new().route("/get-proxy", get(handout)).route("/feedback", post(feedback));
        axum::serve(listener, app).await?;
        Ok(())
    })
}

async fn handout(Query(query): Query<HandoutQuery>) -> Response {
    // Everything is looked at, so that nothing of the parsing can be left out.
    let others = [
        &query.count,
        &query.protocol,
        &query.country,
        &query.anonymity,
        &query.https,
        &query.min_score,
        &query.exclude,
        &query.session,
        &query.session_ttl_s,
    ];
    if query.source.is_none() || others.iter().any(|other| other.is_some()) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    json(HANDOUT)
}

async fn feedback(body: Bytes) -> Response {
    match serde_json::from_slice::<ReportBody<'_>>(&body) {
        Ok(ReportBody { source, proxy, status, response_time_ms, failure_kind: None, id: None })
            if !source.is_empty() && !proxy.is_empty() && status > 0 && response_time_ms.is_some() =>
        {
            json(RECORDED)
        }
        _ => StatusCode::BAD_REQUEST.into_response(),
    }
}

fn json(body: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
