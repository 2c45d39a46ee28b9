//! Every way to speak to the gateway, over every kind of upstream, with and without logins.

use smartproxy_core::{Login, Protocol};
use smartproxy_testkit::Mood;

use crate::service::{Home, Ran, Service, finish};
use crate::town::Town;

/// Runs curl through the gateway.
async fn curl(home: &Home, args: &[&str]) -> Ran {
    let mut command = home.program("curl");
    command
        .args(["-q", "--silent", "--show-error", "--max-time", "20", "--noproxy", "", "--insecure"])
        .args(args);
    finish(command).await
}

/// One upstream of this protocol, alone.
async fn alone(protocol: Protocol, login: Option<Login>) -> (Town, Home, Service) {
    let town = Town::of([(protocol, Mood::good().with_login(login))]);
    let ini = town.ini().with("gateway", "allow_special_targets", "true");
    let (home, service) = town.serve_with(ini).await;
    (town, home, service)
}

#[tokio::test]
async fn every_mode_works_over_every_upstream_with_and_without_its_login() {
    for protocol in Protocol::ALL {
        for login in [None, Some(Login::try_new("user-1", "s3cret").unwrap())] {
            let (town, home, service) = alone(protocol, login.clone()).await;
            let gateway = service.gateway();
            let mut asked = 0;
            for mode in ["http", "tunnel", "socks4", "socks4a", "socks5", "socks5h"] {
                for scheme in ["http", "https"] {
                    let proxy = if mode == "tunnel" { "http" } else { mode };
                    let proxy = format!("{proxy}://{gateway}");
                    let url = format!("{scheme}://{}/get?mode={mode}", town.target.addr());
                    let mut args = vec!["--proxy", &proxy, &url];
                    if mode == "tunnel" {
                        args.push("--proxytunnel");
                    }
                    let count = || town.upstream(0).counts().by_target.values().sum::<u64>();
                    let before = count();
                    let ran = curl(&home, &args).await;
                    let what = format!("{mode} to {scheme} over {protocol}, login {login:?}");
                    assert_eq!(ran.code, 0, "{what}: {ran:?}\n{}", service.log());
                    let echo: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
                    assert_eq!(echo["args"]["mode"], mode, "{what}");
                    assert!(count() > before, "{what}: not through the upstream");
                    asked += 1;
                }
            }
            assert_eq!(asked, 12);
        }
    }
}
