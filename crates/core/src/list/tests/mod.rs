//! What is found in which list; the properties are in `properties`.

mod properties;

use super::*;

fn parse_text(text: impl AsRef<[u8]>) -> ParsedList {
    parse(text.as_ref(), &ListOptions::default())
}

fn urls(list: &ParsedList) -> Vec<String> {
    list.proxies.iter().map(ProxyAddr::url).collect()
}

#[track_caller]
fn finds(text: impl AsRef<[u8]>, expected: &[&str]) {
    let list = parse_text(&text);
    assert_eq!(urls(&list), expected, "{} in {}", list.rejected, String::from_utf8_lossy(text.as_ref()));
}

#[test]
fn every_form_of_a_line_is_read() {
    for (line, url) in [
        ("8.8.8.8:80", "http://8.8.8.8:80"),
        ("HTTPS://8.8.8.8:443/", "https://8.8.8.8:443"),
        ("socks4://8.8.8.8:1080", "socks4://8.8.8.8:1080"),
        ("socks4a://8.8.8.8:1080", "socks4a://8.8.8.8:1080"),
        ("socks5h://proxy.example.com:1080", "socks5h://proxy.example.com:1080"),
        ("socks5://alice:p%40ss@8.8.8.8:1080", "socks5://alice:p%40ss@8.8.8.8:1080"),
        ("http://alice@8.8.8.8:80", "http://alice:@8.8.8.8:80"),
        ("alice:s3cret@8.8.8.8:80", "http://alice:s3cret@8.8.8.8:80"),
        ("8.8.8.8:80:alice:s3cret", "http://alice:s3cret@8.8.8.8:80"),
        ("8.8.8.8:80:alice:s3:c@ret%", "http://alice:s3%3Ac%40ret%25@8.8.8.8:80"),
        ("socks5://8.8.8.8:80:alice:s3cret", "socks5://alice:s3cret@8.8.8.8:80"),
        ("proxy.example.com:3128:alice:s3cret", "http://alice:s3cret@proxy.example.com:3128"),
        ("[2606:4700::1111]:8080", "http://[2606:4700::1111]:8080"),
        ("socks5://[2606:4700::1111]:8080", "socks5://[2606:4700::1111]:8080"),
        ("[2606:4700::1111]:8080:alice:s3cret", "http://alice:s3cret@[2606:4700::1111]:8080"),
        ("8.8.8.8:80 US-A elite", "http://8.8.8.8:80"),
        ("8.8.8.8:80\tUS\tanonymous", "http://8.8.8.8:80"),
        ("8.8.8.8:80,US,elite", "http://8.8.8.8:80"),
        ("8.8.8.8:80;US", "http://8.8.8.8:80"),
        ("8.8.8.8:80|US", "http://8.8.8.8:80"),
        ("socks5://8.8.8.8:80#Frankfurt 1", "socks5://8.8.8.8:80"),
        ("  8.8.8.8:80  ", "http://8.8.8.8:80"),
        ("\"8.8.8.8:80\",", "http://8.8.8.8:80"),
        ("- 8.8.8.8:80", "http://8.8.8.8:80"),
        ("8.8.8.8 80", "http://8.8.8.8:80"),
        ("8.8.8.8\t80\tUS", "http://8.8.8.8:80"),
        ("8.8.8.8,80,US,socks5", "socks5://8.8.8.8:80"),
        ("\"8.8.8.8\",\"80\",\"SOCKS4\"", "socks4://8.8.8.8:80"),
        ("US;8.8.8.8;80", "http://8.8.8.8:80"),
        ("socks5 8.8.8.8 1080", "socks5://8.8.8.8:1080"),
        ("proxy.example.com,80", "http://proxy.example.com:80"),
        ("8.8.8.8:80 SOCKS5", "socks5://8.8.8.8:80"),
        ("http://al,ice:s3cret@8.8.8.8:80", "http://al%2Cice:s3cret@8.8.8.8:80"),
        ("12. 8.8.8.8:80", "http://8.8.8.8:80"),
    ] {
        finds(line, &[url]);
    }
}

#[test]
fn a_bad_line_is_skipped_and_counted_with_its_reason() {
    for (line, reason) in [
        ("nonsense", Rejection::NoEntry),
        ("<<<>>> ???", Rejection::NoEntry),
        ("ftp://8.8.8.8:21", Rejection::Protocol),
        ("://8.8.8.8:21", Rejection::Protocol),
        ("8.8.8.256:80", Rejection::Host),
        ("8.8.8.8.8:80", Rejection::Host),
        ("http://:80", Rejection::Host),
        ("2606:4700::1111:80", Rejection::Host),
        ("[2606:4700::zzzz]:80", Rejection::Host),
        ("updated:2026", Rejection::Host),
        ("8.8.8.8", Rejection::Port),
        ("8.8.8.8:", Rejection::Port),
        ("8.8.8.8:0", Rejection::Port),
        ("8.8.8.8:65536", Rejection::Port),
        ("8.8.8.8:-80", Rejection::Port),
        ("8.8.8.8:80x", Rejection::Port),
        ("http://8.8.8.8", Rejection::Port),
        ("8.8.8.8 99999", Rejection::Port),
        ("8.8.8.8:80:alice", Rejection::Login),
        ("8.8.8.8:80::secret", Rejection::Login),
        ("http://:secret@8.8.8.8:80", Rejection::Login),
        ("http://a%ff:b@8.8.8.8:80", Rejection::Login),
        ("http://8.8.8.8:80/path", Rejection::Trailing),
        ("127.0.0.1:80", Rejection::Special),
        ("http://[::ffff:10.0.0.1]:80", Rejection::Special),
        ("localhost:80", Rejection::Special),
        ("db.internal:80", Rejection::Special),
    ] {
        let list = parse_text(format!("8.8.4.4:1\n{line}\n8.8.4.4:2\n"));
        assert_eq!(urls(&list), ["http://8.8.4.4:1", "http://8.8.4.4:2"], "{line}");
        assert_eq!((list.rejected.count(reason), list.rejected.total()), (1, 1), "{line}: {}", list.rejected);
        assert_eq!(list.lines, 3);
    }
}

#[test]
fn special_addresses_and_local_names_are_taken_when_allowed() {
    let options = ListOptions { allow_special: true, ..ListOptions::default() };
    let list = parse(b"127.0.0.1:80\nlocalhost:81\nproxy:82\n[::1]:83", &options);
    assert_eq!(
        urls(&list),
        ["http://127.0.0.1:80", "http://localhost:81", "http://proxy:82", "http://[::1]:83"]
    );
}

#[test]
fn the_default_protocol_is_http_unless_configured() {
    let options = ListOptions { default_protocol: Some(Protocol::Socks5), ..ListOptions::default() };
    assert_eq!(
        urls(&parse(b"8.8.8.8:1\nhttp://8.8.8.8:2", &options)),
        ["socks5://8.8.8.8:1", "http://8.8.8.8:2"]
    );
}

#[test]
fn comments_and_empty_lines_do_not_count() {
    let list = parse_text("# 8.8.8.8:1\n\n  // 8.8.8.8:2\n; 8.8.8.8:3\n8.8.8.8:4\n");
    assert_eq!(urls(&list), ["http://8.8.8.8:4"]);
    assert_eq!((list.lines, list.rejected.total()), (1, 0));
}

#[test]
fn line_ends_of_every_system_are_read() {
    finds(
        "8.8.8.8:1\r\n8.8.8.8:2\r8.8.8.8:3\n8.8.8.8:4",
        &["http://8.8.8.8:1", "http://8.8.8.8:2", "http://8.8.8.8:3", "http://8.8.8.8:4"],
    );
}

#[test]
fn encodings_are_told_apart() {
    let text = "8.8.8.8:1\n8.8.8.8:2 Zürich";
    let utf16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(unit).collect()
    };
    let latin1: Vec<u8> = text.chars().map(|c| c as u8).collect();
    let marked = format!("\u{feff}{text}");
    for bytes in [utf16(u16::to_le_bytes), utf16(u16::to_be_bytes), latin1, marked.into_bytes()] {
        finds(bytes, &["http://8.8.8.8:1", "http://8.8.8.8:2"]);
    }
}

#[test]
fn one_long_line_of_entries_is_a_list() {
    let urls: Vec<String> = (1..=50_000).map(|port| format!("http://8.8.8.8:{port}")).collect();
    for separator in [" ", ",", "\t", ";", ", "] {
        let list = parse_text(urls.join(separator));
        assert_eq!(list.proxies.len(), 50_000, "{separator:?}");
    }
}

#[test]
fn duplicates_are_counted_and_kept_once_in_order() {
    let list = parse_text("8.8.8.8:2\n8.8.8.8:1\nHTTP://8.8.8.8:2\na:1@8.8.8.8:2\na:2@8.8.8.8:2");
    assert_eq!(urls(&list), ["http://8.8.8.8:2", "http://8.8.8.8:1", "http://a:1@8.8.8.8:2"]);
    assert_eq!(list.duplicates, 2);
}

#[test]
fn reading_stops_at_the_most_proxies() {
    let options = ListOptions { max_proxies: 2, ..ListOptions::default() };
    let full = parse(b"8.8.8.8:1\n8.8.8.8:2\n8.8.8.8:2", &options);
    assert!(full.proxies.len() == 2 && !full.truncated);
    for text in [
        "8.8.8.8:1\n8.8.8.8:2\n8.8.8.8:3",
        "[\"8.8.8.8:1\",\"8.8.8.8:2\",\"8.8.8.8:3\"]",
        "<p>8.8.8.8:1<p>8.8.8.8:2<p>8.8.8.8:3",
        "ip,port\n8.8.8.8,1\n8.8.8.8,2\n8.8.8.8,3",
    ] {
        let list = parse(text.as_bytes(), &options);
        assert!(list.proxies.len() == 2 && list.truncated, "{text}");
    }
}

#[test]
fn csv_columns_are_found_by_name() {
    for text in [
        "ip,port,protocol,country\n8.8.8.8,80,socks5,US\n8.8.4.4,81,http,DE\n",
        "Country;IP Address;Port;Type\nUS;8.8.8.8;80;SOCKS5\nDE;8.8.4.4;81;elite\n",
        "\"host\"\t\"port\"\t\"type\"\n\"8.8.8.8\"\t\"80\"\t\"socks5\"\n\"8.8.4.4\"\t\"81\"\t\"HTTP\"\n",
        "proxy,protocol\n8.8.8.8:80,socks5\nhttp://8.8.4.4:81,http\n",
        "\"city\",\"ip\",\"port\",\"protocol\"\n\"Washington, \"\"DC\"\"\",8.8.8.8,80,socks5\n,8.8.4.4,81,http\n",
    ] {
        let list = parse_text(text);
        assert_eq!(urls(&list), ["socks5://8.8.8.8:80", "http://8.8.4.4:81"], "{text}");
        assert_eq!(list.looks_like, Format::Csv);
    }
    finds(
        "host,port,username,password\n8.8.8.8,80,alice,s3:c@ret",
        &["http://alice:s3%3Ac%40ret@8.8.8.8:80"],
    );
}

#[test]
fn bad_csv_records_are_counted() {
    let list = parse_text(
        "ip,port,protocol\n8.8.8.8,80,vmess\n8.8.8,80,http\n8.8.8.8,,http\n8.8.8.8,0,http\n10.0.0.1,1,http",
    );
    let counts = [Rejection::Protocol, Rejection::Host, Rejection::Port, Rejection::Special];
    assert_eq!(counts.map(|reason| list.rejected.count(reason)), [1, 1, 2, 1], "{}", list.rejected);
}

#[test]
fn well_known_json_feeds_are_read() {
    // geonode
    finds(
        r#"{"data":[{"_id":"60d6","ip":"8.8.8.8","anonymityLevel":"elite","asn":"AS1","port":"4145","protocols":["socks4","socks5"],"workingPercent":null},
        {"ip":"8.8.4.4","port":"80","protocols":["http"]}],"total":2,"page":1,"limit":500}"#,
        &["socks4://8.8.8.8:4145", "socks5://8.8.8.8:4145", "http://8.8.4.4:80"],
    );
    // proxyscrape v3
    let list = parse_text(
        r#"{"shown_records":1,"proxies":[{"alive":true,"anonymity":"elite","ip":"8.8.8.8","ip_data":{"as":"AS1","country":"X"},
        "port":1080,"protocol":"socks5","proxy":"socks5://8.8.8.8:1080","ssl":false}]}"#,
    );
    assert_eq!((urls(&list), list.duplicates), (vec!["socks5://8.8.8.8:1080".to_owned()], 0));
    // monosans
    finds(
        r#"[{"protocol":"http","username":null,"password":null,"host":"8.8.8.8","port":80,"timeout":1.1,"exit_ip":"8.8.8.8","geolocation":{"city":{"names":{"en":"X"}}}},
        {"protocol":"socks4","username":"alice","password":"s3cret","host":"8.8.4.4","port":1080}]"#,
        &["http://8.8.8.8:80", "socks4://alice:s3cret@8.8.4.4:1080"],
    );
    // proxifly
    finds(
        r#"[{"proxy":"socks4://8.8.8.8:80","protocol":"socks4","ip":"8.8.8.8","port":80,"https":false,"geolocation":{"country":"ZZ"}}]"#,
        &["socks4://8.8.8.8:80"],
    );
    // hidemy
    finds(
        r#"[{"host":"8.8.8.8","ip":"8.8.8.8","port":"80","http":"1","ssl":"1","socks4":"0","socks5":"1"}]"#,
        &["http://8.8.8.8:80", "socks5://8.8.8.8:80"],
    );
}

#[test]
fn json_of_any_shape_is_read() {
    for (text, found) in [
        (r#"["8.8.8.8:80"]"#, "http://8.8.8.8:80"),
        (r#"["proxy.example.com:80"]"#, "http://proxy.example.com:80"),
        (r#"["http:\/\/8.8.8.8:80"]"#, "http://8.8.8.8:80"),
        (r#"["8\u002e8.8.8:80"]"#, "http://8.8.8.8:80"),
        (r#"{"socks5":["8.8.8.8:80"]}"#, "socks5://8.8.8.8:80"),
        (r#"{"SOCKS4 proxies":{"list":[{"ip":"8.8.8.8","port":80}]}}"#, "socks4://8.8.8.8:80"),
        (r#"{"a":{"b":[{"c":{"address":"8.8.8.8","Port":80,"Type":"SOCKS5"}}]}}"#, "socks5://8.8.8.8:80"),
        (r#"{"port":"80","type":"elite","ip":"8.8.8.8"}"#, "http://8.8.8.8:80"),
        (r#"{"proxy":"8.8.8.8:80","protocol":"socks5"}"#, "socks5://8.8.8.8:80"),
        (r#"{"protocol":"socks5","host":"8.8.8.8:80"}"#, "socks5://8.8.8.8:80"),
        (r#"{"curl":"socks4://8.8.8.8:80","up":true}"#, "socks4://8.8.8.8:80"),
        (r#"{"8.8.8.8:80":{"country":"US"}}"#, "http://8.8.8.8:80"),
        (r#"[["8.8.8.8",80,"socks5"]]"#, "socks5://8.8.8.8:80"),
        (r#"{"aaData":[["US","8.8.8.8","80","SOCKS4"]]}"#, "socks4://8.8.8.8:80"),
        (r#"{"data":"; list\n8.8.8.8:80\r\n"}"#, "http://8.8.8.8:80"),
        (r#"{"data":[{"ip":"8.8.8.8","port":80},{"ip":"8.8.4.4","po"#, "http://8.8.8.8:80"),
        ("{\"ip\":\"2606:4700::1111\",\"port\":80}", "http://[2606:4700::1111]:80"),
    ] {
        finds(text, &[found]);
    }
    finds(
        "{\"ip\":\"8.8.8.8\",\"port\":1}\n{\"ip\":\"8.8.8.8\",\"port\":2}\n",
        &["http://8.8.8.8:1", "http://8.8.8.8:2"],
    );
}

#[test]
fn a_login_in_one_text_of_an_object_is_kept_when_its_parts_are_named_as_well() {
    finds(
        r#"{"proxies": [{"proxy": "socks5://al%3Aice:s3cret@8.8.8.8:1080", "protocol": "socks5", "ip": "8.8.8.8",
            "port": 1080}, {"ip": "8.8.4.4", "port": "80", "url": "http://bob:pass@8.8.4.4:80"}]}"#,
        &["socks5://al%3Aice:s3cret@8.8.8.8:1080", "http://bob:pass@8.8.4.4:80"],
    );
}

#[test]
fn bad_json_entries_are_counted() {
    let list = parse_text(
        r#"[{"ip":"8.8.8.8","port":80,"protocol":"vmess"},{"ip":"8.8.8.8","port":70000},{"ip":"8.8.8","port":1},
        {"ip":"10.0.0.1","port":1},{"ip":"8.8.8.8","port":1,"created":"12:30","site":"https://example.com:443"}]"#,
    );
    assert_eq!(urls(&list), ["http://8.8.8.8:1"]);
    let counts = [Rejection::Protocol, Rejection::Port, Rejection::Host, Rejection::Special];
    assert_eq!(counts.map(|reason| list.rejected.count(reason)), [1; 4], "{}", list.rejected);
}

#[test]
fn deep_json_is_read_without_recursion() {
    let deep = format!("{}\"8.8.8.8:80\"{}", "[".repeat(100_000), "]".repeat(100_000));
    finds(deep, &["http://8.8.8.8:80"]);
    let deep = format!("{}{{\"ip\":\"8.8.8.8\",\"port\":80}}", "{\"a\":".repeat(50));
    finds(deep, &["http://8.8.8.8:80"]);
}

#[test]
fn tables_of_pages_are_read() {
    finds(
        "<!DOCTYPE html><html><head><title>Free SOCKS5 list 12:30</title></head><body><ul><li><a href='/socks4'>SOCKS4</a></li></ul>
        <table><thead><tr><th>IP Address</th><th>Port</th><th>Code</th><th>Https</th></tr></thead><tbody>
        <tr><td>8.8.8.8</td><td>3128</td><td>US</td><td class='hm'>elite proxy</td><td class='hx'>no</td></tr>
        <tr><td>8.8.4.4</td><td>1080</td><td>DE</td><td>SOCKS4</td></tr>
        <tr><td>SOCKS5</td><td><b>8.8.4.4</b></td>\n<td>&#49;081</td></tr>
        <tr><td data-ip=\"8.8.8.9:80\">8.8.8.9</td><td>80</td><td>SOCKS4, SOCKS5</td></tr>
        </tbody></table></body></html>",
        &[
            "http://8.8.8.8:3128",
            "socks4://8.8.4.4:1080",
            "socks5://8.8.4.4:1081",
            "socks4://8.8.8.9:80",
            "socks5://8.8.8.9:80",
        ],
    );
}

#[test]
fn text_of_pages_is_read() {
    for (page, found) in [
        ("<html><pre>\n8.8.8.8:80\n</pre>", "http://8.8.8.8:80"),
        ("<p>Use 8.8.8.8:80, it is good.</p>", "http://8.8.8.8:80"),
        ("<div>8.8.8.8&#58;80</div>", "http://8.8.8.8:80"),
        ("<div>8.8.8.8&colon;80</div>", "http://8.8.8.8:80"),
        ("<div><span>8.8.8.8</span>:<span>80</span></div>", "http://8.8.8.8:80"),
        ("<div>8.8.8.8</div><div>:80</div><div>socks4</div>", "socks4://8.8.8.8:80"),
        ("<ul><li>socks5://alice:s3cret@8.8.8.8:80</li></ul>", "socks5://alice:s3cret@8.8.8.8:80"),
        ("<td>8.8.8.8:80</td><td>HTTP</td>", "http://8.8.8.8:80"),
        ("<td>[2606:4700::1111]:80</td>", "http://[2606:4700::1111]:80"),
        ("<script>var list = ['8.8.8.8:80'];</script>", "http://8.8.8.8:80"),
        ("<a href=\"socks5://8.8.8.8:1080\">copy</a>", "socks5://8.8.8.8:1080"),
        ("<rss><item><prx:ip>8.8.8.8</prx:ip><prx:port>80</prx:port></item></rss>", "http://8.8.8.8:80"),
        ("<?xml?><p><![CDATA[8.8.8.8:80]]></p>", "http://8.8.8.8:80"),
        ("# list\n<table><tr><td>8.8.8.8</td><td>80</td></table>", "http://8.8.8.8:80"),
        (
            "<p>8.8.8.8:80<!-- 8.8.8.8:81 --><style>8.8.8.8:82</style><a href='http://8.8.8.8:83/x'>x</a>",
            "http://8.8.8.8:80",
        ),
    ] {
        finds(page, &[found]);
    }
}

#[test]
fn answers_without_proxies_are_told_apart() {
    for (text, verdict) in [
        ("", ListVerdict::Empty),
        ("\u{feff} \r\n\n", ListVerdict::Empty),
        ("# nothing today\n", ListVerdict::Empty),
        ("[]", ListVerdict::Empty),
        (r#"{"data":[],"total":0}"#, ListVerdict::Empty),
        ("ip,port\n", ListVerdict::Empty),
        (
            "<html><head><title>502 Bad Gateway</title></head><body><hr>nginx/1.18.0</body></html>",
            ListVerdict::ErrorPage,
        ),
        (
            "<!DOCTYPE html><p>Checking your browser. Ray ID: 12:34 <a href='https://example.com:443'>x</a>",
            ListVerdict::ErrorPage,
        ),
        ("<html></html>", ListVerdict::ErrorPage),
        (r#"{"error":"rate limited"}"#, ListVerdict::NoEntries),
        ("404: Not Found", ListVerdict::NoEntries),
        ("10.0.0.1:80", ListVerdict::NoEntries),
        ("<table><tr><td>10.0.0.1</td><td>80</td></table>", ListVerdict::NoEntries),
        ("8.8.8.8:80", ListVerdict::Proxies),
    ] {
        assert_eq!(parse_text(text).verdict(), verdict, "{text}");
    }
}
