//! Real curl through what the service hands out.

use std::io::Write as _;

use smartproxy_core::{Login, Protocol};
use smartproxy_testkit::Mood;

use crate::service::{Home, finish};
use crate::town::Town;

/// Every protocol with this mood: asked for, used with curl for http and https, reported.
async fn works_with_curl(mood: Mood) {
    let town = Town::of(Protocol::ALL.map(|protocol| (protocol, mood.clone())));
    let (home, service) = town.serve().await;
    let mut root = tempfile::NamedTempFile::new().unwrap();
    root.write_all(town.target.ca().root_pem().as_bytes()).unwrap();
    for protocol in Protocol::ALL {
        let handout =
            service.get(&format!("/get-proxy?source=default&protocol={protocol}&count=9")).await.json();
        assert_eq!(handout["proxies"].as_array().unwrap().len(), 1, "{handout}");
        let proxy = &handout["proxies"][0];
        for (key, url) in
            [("http", town.target.url("/get?a=b")), ("https", town.target.https_url("/get?a=b"))]
        {
            let proxy = proxy[key].as_str().unwrap();
            let mut command = Home::empty().program("curl");
            command
                .args(["-q", "--silent", "--show-error", "--max-time", "20", "--noproxy", ""])
                .args(["--proxy", proxy, "--proxy-insecure", "--cacert"])
                .arg(root.path())
                .arg(&url)
                .current_dir(home.path(""));
            let ran = finish(command).await;
            assert_eq!(ran.code, 0, "{protocol} {url}: {ran:?}");
            let echo: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!((echo["url"].as_str(), echo["args"]["a"].as_str()), (Some(url.as_str()), Some("b")));
            assert_eq!(service.report("default", proxy, 200).await["scored"], true, "{protocol}");
        }
    }
}

#[tokio::test]
async fn curl_works_through_handed_out_proxies_of_every_protocol() {
    works_with_curl(Mood::good()).await;
}

#[tokio::test]
async fn curl_works_through_handed_out_proxies_with_logins() {
    works_with_curl(Mood::login_wanted(Login::try_new("alice", "p@ss:w0rd%/#").unwrap())).await;
}
