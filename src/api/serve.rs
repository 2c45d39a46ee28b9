//! Connections of the API, with their limits.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::access::Readers;
use super::error::ApiError;
use super::{Api, page, router};

/// Most open connections; further ones wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 4096;
/// A client must send a whole head in this time; an idle connection is closed after it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head in bytes (request line and headers).
const MOST_HEAD_BYTES: usize = 64 * 1024;
/// Most headers of one request.
const MOST_HEADERS: usize = 100;

/// Answers on `listener` until `stop`; then lets requests under way finish, which takes as long as they take: the
/// caller sets the deadline, and dropping the future cuts them off.
pub async fn serve(listener: TcpListener, api: Arc<Api>, stop: CancellationToken) {
    let app = router(Arc::clone(&api));
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // The permit comes first: load waits outside.
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async {
                let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
                (listener.accept().await, permit)
            } => accepted,
        };
        let (stream, peer, permit) = match accepted {
            (Ok((stream, peer)), permit) => (stream, peer, permit),
            (Err(error), _) => {
                // Out of file descriptors, most likely: it passes when a connection closes.
                tracing::warn!("a connection to the API could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (app, api, stop) = (app.clone(), Arc::clone(&api), stop.clone());
        connections.spawn(async move {
            api.connections.fetch_add(1, Ordering::Relaxed);
            connection(stream, peer, app, &api, stop).await;
            api.connections.fetch_sub(1, Ordering::Relaxed);
            drop(permit);
        });
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: axum::Router,
    api: &Arc<Api>,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(|request| {
        let answer = answer(&app, api, peer, request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MOST_HEAD_BYTES)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("connection from {peer} ended: {error}");
    }
}

/// Not a layer of the router: one would box every request, and cost more than the check itself.
async fn answer(
    app: &axum::Router,
    api: &Api,
    peer: SocketAddr,
    request: hyper::Request<Incoming>,
) -> Response {
    let readers = match api.access.load().admit(peer.ip(), &request) {
        Ok(readers) => readers,
        // Somebody who opened the page in a browser gets it, to log in with; the status stays.
        Err(error) if error.wants_token() && page::is_visited(&request) => {
            return page::page(error.status(), request.uri().path());
        }
        Err(error) => return error.into_response(),
    };
    let answered = AssertUnwindSafe(app.clone().call(request)).catch_unwind().await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Err(_) => {
            api.metrics.panics.inc();
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error.").into_response()
        }
    };
    if readers == Readers::OtherPages {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    response
}
