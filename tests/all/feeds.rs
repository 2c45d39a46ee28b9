//! Feeds: every format of lists, conditional requests, and lists that are none.

use std::collections::BTreeSet;

use smartproxy_core::{Login, Protocol, ProxyAddr};
use smartproxy_testkit::{FeedMood, FeedServer, Format};

use crate::ini::Ini;
use crate::service::{Home, Service, until};

/// Proxies at which nobody listens; some with a login.
fn absent(count: u16) -> Vec<ProxyAddr> {
    let login = Login::try_new("us-er", "pass.word").unwrap();
    (0..count)
        .map(|at| {
            let protocol = Protocol::ALL[usize::from(at) % 6];
            let text = format!("{protocol}://127.77.{}.{}:9", at / 200, at % 200 + 1);
            let login = at.is_multiple_of(3).then(|| login.clone());
            ProxyAddr::parse(&text).unwrap().with_login(login)
        })
        .collect()
}

/// Feeds fetched every 0.6 seconds.
fn often(feeds: &FeedServer, names: &[&str]) -> Ini {
    names.iter().fold(Ini::quick(), |ini, name| {
        let section = format!("proxy_source_{name}");
        ini.with(&section, "url", feeds.url(name)).with(&section, "update_interval_minutes", 0.01)
    })
}

async fn exported(home: &Home) -> BTreeSet<String> {
    let ran = home.run(&["export"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout.lines().map(str::to_owned).collect()
}

async fn known(service: &Service) -> u64 {
    service.get("/health").await.json()["known_proxies"].as_u64().unwrap()
}

#[tokio::test]
async fn every_format_of_lists_is_read_as_it_is_published() {
    let feeds = FeedServer::start().unwrap();
    let mut ini = Ini::quick();
    let mut expected = BTreeSet::new();
    for (at, format) in Format::ALL.into_iter().enumerate() {
        let name = format!("{format:?}").to_lowercase();
        let section = format!("proxy_source_{name}");
        ini = ini.with(&section, "url", feeds.url(&name));
        let proxies: Vec<ProxyAddr> = absent(6)
            .into_iter()
            .map(|addr| {
                // Each feed has proxies of its own, in the one protocol where the format cannot say it.
                let text = addr.url().replace("127.77.0", &format!("127.78.{at}"));
                if format.names_protocol() {
                    ProxyAddr::parse(&text).unwrap()
                } else {
                    ProxyAddr::parse(&format!("socks5{}", &text[text.find(':').unwrap()..])).unwrap()
                }
            })
            .filter(|addr| format.can_express(addr))
            .collect();
        if !format.names_protocol() {
            ini = ini.with(&section, "default_protocol", "socks5");
        }
        expected.extend(proxies.iter().map(ProxyAddr::url));
        feeds.publish(&name, format, proxies);
    }
    let home = Home::new(&ini);
    let service = home.start().await;
    service.wait_for("known_proxies", expected.len()).await;
    assert_eq!(exported(&home).await, expected);
    let counts = feeds.counts("lines");
    assert_eq!((counts.requests, counts.gzipped), (1, 1), "gzip is asked for and understood");
}

#[tokio::test]
async fn proxies_are_found_in_the_middle_of_anything_and_bad_lines_are_counted() {
    let home = Home::new(&Ini::quick().with("proxy_source_file", "url", "./lists/mixed.txt"));
    std::fs::create_dir(home.path("lists")).unwrap();
    let mut bytes = b"\xef\xbb\xbf# a comment\r\n127.77.1.1:9\r\n socks5://127.77.1.2:9  \n".to_vec();
    bytes.extend(b"127.77.1.3:9:user:pass\nhttp://[::1]:9\nSOCKS4A://127.77.1.4:9\n127.77.1.1:9\n");
    bytes.extend(b"not a proxy\n127.77.1.5:99999\n127.77.1.6:0\n999.1.1.1:80\n\xff\xfe\xfd broken\n");
    home.write("lists/mixed.txt", bytes);
    let service = home.start().await;
    service.wait_for("known_proxies", 5).await;
    let expected = [
        "http://127.77.1.1:9",
        "socks5://127.77.1.2:9",
        "http://user:pass@127.77.1.3:9",
        "http://[::1]:9",
        "socks4a://127.77.1.4:9",
    ];
    assert_eq!(exported(&home).await, expected.into_iter().map(str::to_owned).collect());
    service.wait_for_log("refused: ").await;
}

#[tokio::test]
async fn a_list_that_did_not_change_is_not_sent_again_not_even_after_a_restart() {
    let feeds = FeedServer::start().unwrap();
    feeds.publish("list", Format::Lines, absent(3));
    let home = Home::new(&often(&feeds, &["list"]));
    let service = home.start().await;
    until("it was not modified", async || feeds.counts("list").not_modified >= 1).await;
    assert_eq!(service.stop().await, 0);
    let before = feeds.counts("list");
    let service = home.start().await;
    until("it was asked for again", async || feeds.counts("list").requests > before.requests).await;
    let after = feeds.counts("list");
    assert_eq!(after.requests - after.not_modified, 1, "sent once: {after:?}");
    assert!(after.last_headers.first("if-none-match").is_some());

    // A new list is sent, and what is new in it is taken in.
    feeds.publish("list", Format::Lines, absent(5));
    service.wait_for("known_proxies", 5).await;
}

#[tokio::test]
async fn a_failing_feed_is_asked_less_and_less_often_and_a_restart_does_not_forget_it() {
    let feeds = FeedServer::start().unwrap();
    for (name, mood) in [
        ("gone", FeedMood::Status(404)),
        ("broken", FeedMood::Status(503)),
        ("page", FeedMood::HtmlErrorPage),
        ("loops", FeedMood::Redirect { hops: u32::MAX }),
        ("good", FeedMood::Redirect { hops: 2 }),
    ] {
        feeds.publish(name, Format::Lines, absent(2));
        feeds.set_mood(name, mood);
    }
    let home = Home::new(&often(&feeds, &["gone", "broken", "page", "loops", "good"]));
    let service = home.start().await;
    service.wait_for("known_proxies", 2).await;
    for (name, why) in [
        ("gone", "status 404"),
        ("broken", "status 503"),
        ("page", "not a list: an HTML page without proxies"),
        ("loops", "more than 5 redirects"),
    ] {
        service.wait_for_log(&format!("feed {name:?}: {why}")).await;
    }
    until("the good one is fetched often", async || feeds.counts("good").requests >= 9).await;
    assert_eq!(service.stop().await, 0);
    let before = feeds.requests();
    let _service = home.start().await;
    let wanted = before["good"] + 3;
    until("the good one is fetched again", async || feeds.counts("good").requests >= wanted).await;
    for name in ["gone", "page"] {
        assert_eq!(feeds.counts(name).requests, before[name], "{name} waits for its time");
        assert_eq!(before[name], 1, "{name}");
    }
}

#[tokio::test]
async fn a_list_that_shrinks_to_nothing_is_not_believed_at_first() {
    let feeds = FeedServer::start().unwrap();
    feeds.publish("list", Format::Lines, absent(60));
    let home = Home::new(&often(&feeds, &["list"]));
    let service = home.start().await;
    service.wait_for("known_proxies", 60).await;
    feeds.set_mood("list", FeedMood::Shrunk(1));
    service.wait_for_log("shrank from 60 to 1 proxies and is not imported (seen 1 times)").await;
    service.wait_for_log("seen 2 times").await;
    // The third time it is the list; what was known stays known.
    service.wait_for_log("feed \"list\": 1 proxies").await;
    assert_eq!(known(&service).await, 60);
}

#[tokio::test]
async fn a_list_is_bounded_in_bytes_and_entries() {
    let feeds = FeedServer::start().unwrap();
    feeds.publish("many", Format::Lines, absent(300));
    for (name, mood) in [("endless", FeedMood::Endless), ("bomb", FeedMood::GzipBomb { mebibytes: 200 })] {
        feeds.publish(name, Format::Lines, absent(3));
        feeds.set_mood(name, mood);
    }
    let ini = ["many", "endless", "bomb"]
        .iter()
        .fold(Ini::quick(), |ini, name| ini.with(&format!("proxy_source_{name}"), "url", feeds.url(name)));
    let ini = ini.with("fetcher", "max_list_bytes", 100_000).with("fetcher", "max_proxies_per_list", 200);
    let home = Home::new(&ini);
    let service = home.start().await;
    service.wait_for("known_proxies", 200).await;
    service.wait_for_log("cut off at max_proxies_per_list").await;
    for name in ["endless", "bomb"] {
        service.wait_for_log(&format!("feed {name:?}: ")).await;
    }
    assert_eq!(known(&service).await, 200);
}

#[tokio::test]
async fn nothing_private_is_taken_from_a_list_unless_it_is_allowed() {
    let private = "127.0.0.1:9\n10.0.0.1:80\n192.168.1.1:80\n169.254.169.254:80\n[::1]:80\nlocalhost:80\n";
    let base = || Ini::quick().without("fetcher").with("proxy_source_file", "url", "list.txt");
    let home = Home::new(&base());
    home.write("list.txt", private);
    let service = home.start().await;
    service.wait_for_log("no valid entry in 6 places (rejected: special: 6)").await;
    assert_eq!(known(&service).await, 0);

    let home = Home::new(&base().with("proxy_source_file", "allow_private", "true"));
    home.write("list.txt", "127.0.0.1:9\n127.0.0.2:9\n");
    let service = home.start().await;
    service.wait_for("known_proxies", 2).await;
}

#[tokio::test]
async fn a_feed_may_stand_at_a_private_address_and_still_not_list_any() {
    let feeds = FeedServer::start().unwrap();
    feeds.publish("list", Format::Lines, absent(2));
    let ini = Ini::quick().without("fetcher").with("proxy_source_list", "url", feeds.url("list"));
    let service = Home::new(&ini).start().await;
    service.wait_for_log("feed \"list\": not a list").await;
    assert_eq!((feeds.counts("list").requests, known(&service).await), (1, 0));

    let allowed = Home::new(&ini.with("proxy_source_list", "allow_private", "true"));
    allowed.start().await.wait_for("known_proxies", 2).await;
}

#[tokio::test]
async fn headers_of_a_feed_are_sent_and_a_section_without_url_is_ignored_with_a_warning() {
    let feeds = FeedServer::start().unwrap();
    feeds.publish("list", Format::Lines, absent(1));
    let ini = Ini::quick()
        .with("proxy_source_list", "url", feeds.url("list"))
        .with("proxy_source_list", "headers", "\nX-Key: abc 123\nAuthorization: Bearer t")
        .with("proxy_source_empty", "update_interval_minutes", 5);
    let service = Home::new(&ini).start().await;
    service.wait_for("known_proxies", 1).await;
    let headers = feeds.counts("list").last_headers;
    assert_eq!((headers.first("x-key"), headers.first("authorization")), (Some("abc 123"), Some("Bearer t")));
    assert!(service.log().contains("proxy_source_empty"), "{}", service.log());
}
