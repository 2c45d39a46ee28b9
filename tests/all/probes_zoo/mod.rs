//! Hostile upstreams, and a judge that finds them out: each gets the right verdict and labels in its time.

mod labels;
mod raw;
mod service;
mod wild;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use smartproxy::clock;
use smartproxy::judge::{Judge, Key, tls};
use smartproxy::validator::{ProbeSettings, ProbeTarget, Prober};
use smartproxy_core::{Ability, Label, Point as _, ProbeReport, Protocol, ProxyAddr, Verdict};
use smartproxy_testkit::{Mood, Upstream, UpstreamSpec};
use smartproxy_tunnel::{Opener, TlsConfigs};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// For probes that end by themselves.
const PATIENCE: Duration = Duration::from_secs(10);

const KEY: &str = "a key that nobody guesses";

/// A judge with and without TLS, and a certificate that the probers trust.
struct Court {
    plain: SocketAddr,
    over_tls: SocketAddr,
    folder: tempfile::TempDir,
    _stop: DropGuard,
}

impl Court {
    async fn open(key: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        std::fs::write(folder.path().join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), signing_key.serialize_pem()).unwrap();
        let acceptor =
            tls::acceptor(&folder.path().join("cert.pem"), &folder.path().join("key.pem")).unwrap();
        let (plain, over_tls) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let judge = Arc::new(Judge::new(Key::try_new(key).unwrap(), clock::now));
        let stop = CancellationToken::new();
        let court = Self {
            plain: plain.local_addr().unwrap(),
            over_tls: over_tls.local_addr().unwrap(),
            folder,
            _stop: stop.clone().drop_guard(),
        };
        tokio::spawn(Arc::clone(&judge).serve(plain, None, stop.clone()));
        tokio::spawn(judge.serve(over_tls, Some(acceptor), stop));
        court
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn plain_url(&self) -> String {
        format!("http://localhost:{}/deep/", self.plain.port())
    }

    fn tls_url(&self) -> String {
        format!("https://localhost:{}/", self.over_tls.port())
    }

    fn judge(url: &str) -> ProbeTarget {
        ProbeTarget::judge(url, &Key::try_new(KEY).unwrap()).unwrap()
    }

    /// Asks the plain judge, and the one with TLS for what a proxy can do.
    async fn prober(&self, timeout: Duration) -> Prober {
        let prober = prober(vec![Self::judge(&self.plain_url())], timeout, Some(self))
            .with_extras(vec![Self::judge(&self.tls_url())]);
        assert_eq!(prober.look_directly().await, 1);
        prober
    }
}

fn prober(targets: Vec<ProbeTarget>, timeout: Duration, court: Option<&Court>) -> Prober {
    let roots = court.map(|court| tls::certificates(&court.certificate()).unwrap()).unwrap_or_default();
    let settings = ProbeSettings {
        targets,
        success_threshold: 1,
        timeout,
        connect_timeout: timeout,
        own_addresses: Vec::new(),
    };
    let opener = Opener::new(TlsConfigs::try_new(&roots).unwrap());
    Prober::try_new(settings, opener, clock::now).unwrap()
}

/// A proxy in this mood.
fn upstream(protocol: Protocol, mood: Mood) -> (Upstream, ProxyAddr) {
    let upstream = Upstream::start(UpstreamSpec::new(protocol).in_mood(mood)).unwrap();
    let addr = upstream.proxy_addr(protocol);
    (upstream, addr)
}

/// The names of what was found.
fn labels(report: &ProbeReport) -> Vec<&'static str> {
    report.labels.found().map(Label::as_str).collect()
}

fn abilities(report: &ProbeReport) -> Vec<&'static str> {
    report.abilities.found().map(Ability::as_str).collect()
}

/// `passed`, or why not.
fn verdict(report: &ProbeReport) -> &'static str {
    match report.verdict {
        Verdict::Passed => "passed",
        Verdict::Failed(failure) => failure.as_str(),
    }
}
