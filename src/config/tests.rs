//! Whole configurations: from a text and an environment to values, errors and warnings.

use std::path::Path;
use std::time::Duration;

use smartproxy_core::engine::Strategy;

use super::load::interpret;
use super::sections::table;
use super::settings::Settings;
use super::*;

type Variables<'a> = &'a [(&'a str, &'a str)];

fn load_text(text: &str, environment: Variables) -> Result<Loaded, ConfigErrors> {
    let file = (Path::new("config.ini").into(), text.as_bytes().to_vec());
    interpret(Some(&file), environment.iter().copied())
}

fn config(text: &str) -> Config {
    load_text(text, &[]).unwrap_or_else(|errors| panic!("{errors}")).config
}

fn built_in(environment: Variables) -> Loaded {
    interpret(None, environment.iter().copied()).unwrap()
}

fn errors(text: &str) -> Vec<String> {
    let errors = load_text(text, &[]).unwrap_err();
    errors.findings().iter().map(ToString::to_string).collect()
}

fn warnings(text: &str) -> Vec<String> {
    load_text(text, &[]).unwrap().warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn the_example_file_is_what_config_example_prints() {
    let file = include_str!("../../config.ini.example");
    assert!(file == example(), "write it anew: smartproxy config example > config.ini.example");
}

#[test]
fn the_example_file_means_the_same_as_no_file() {
    let loaded = load_text(&example(), &[]).unwrap();
    assert_eq!(loaded.config, built_in(&[]).config);
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.feeds.len(), defaults::PUBLIC_FEEDS.len());
}

#[test]
fn the_example_file_names_every_key_with_its_default_and_no_other() {
    let everything: Vec<_> =
        example().lines().map(|line| line.strip_prefix(';').unwrap_or(line).to_owned()).collect();
    let everything = everything.join("\n");
    let path = Path::new("config.ini.example").into();
    let settings = Settings::read(&path, everything.as_bytes()).unwrap();
    for spec in table() {
        let section = settings.sections().iter().find(|s| s.name == spec.display_name()).unwrap();
        let written: Vec<_> = section.keys.iter().map(|(k, s)| (k.as_str(), s.text.as_str())).collect();
        let mut known: Vec<_> = spec.keys.iter().map(|key| (key.name, key.default.as_str())).collect();
        known.sort_by_key(|(name, _)| written.iter().position(|(key, _)| key == name));
        assert_eq!(written, known, "{}", section.name);
    }
    // Switching everything on adds the pool NAME, and changes nothing else.
    let mut config = load_text(&everything, &[]).unwrap().config;
    assert_eq!(config.pools.names, ["default", "NAME"]);
    let (named, default) = (config.pools.pool("NAME"), config.pools.pool("default"));
    assert_eq!(*named, PoolConfig { name: "NAME".to_owned(), ..default.clone() });
    config.pools.names.pop();
    config.pools.each.pop();
    assert_eq!(config, built_in(&[]).config);
}

#[test]
fn the_documented_defaults_hold() {
    let config = built_in(&[]).config;
    assert_eq!((config.server.host.to_string().as_str(), config.server.port), ("127.0.0.1", 6942));
    assert_eq!((config.gateway.host.to_string().as_str(), config.gateway.port), ("127.0.0.1", 6943));
    assert!(config.gateway.is_enabled && config.backup.is_enabled);
    assert_eq!(config.server.shutdown_grace, Duration::from_secs(20));
    assert_eq!(config.database.choice, DatabaseChoice::Sqlite { path: "./data/smartproxy.db".into() });
    assert_eq!(config.database.max_connections, 50);
    assert_eq!(config.validator.targets[0].as_str(), "http://httpbin.org/get");
    assert_eq!(config.validator.timeout, Duration::from_secs(10));
    assert_eq!(config.validator.window, Duration::from_mins(30));
    assert_eq!((config.validator.supplement_threshold, config.validator.max_per_window), (1000, 5));
    assert_eq!(config.scheduler.validation_interval, Duration::from_mins(1));
    assert_eq!(
        (config.pools.names.as_slice(), config.pools.default.as_str()),
        (&["default".to_owned()][..], "default")
    );
    assert_eq!((config.pools.premium_size, config.pools.premium_min_usage_count), (20, 50));
    let pool = config.pools.pool("default");
    assert_eq!((pool.strategy, pool.proxy_cooldown), (Strategy::Adaptive, None));
    assert_eq!(pool.blocked_statuses, [403, 429, 503]);
    assert_eq!((pool.max_pool_size, pool.points_multiplier), (500, 20.0));
    assert_eq!(pool.failure_penalties, [-1.0, -5.0, -20.0]);
    assert_eq!((pool.is_weighted, pool.top_tier_size, pool.top_tier_load), (false, 100, 70.0));
    assert_eq!(config.backup.interval, Duration::from_hours(1));
    assert_eq!(config.backup.path, Path::new("./data/proxy_stats_backup.json"));
    assert_eq!(config.feeds[0].update_interval, Duration::from_hours(1));
    assert_eq!(config.logging.dir, Path::new("./logs"));
}

#[test]
fn every_wrong_value_is_reported_at_once_with_file_line_and_key() {
    let text = "[server]\nport = abc\napi_token = a b\n\n[validator]\nvalidation_timeout_s = 0\n\
        validation_targets = http://a/ nonsense\n[scheduler]\nstats_flush_interval_seconds = often\n\
        [backup]\nstats_backup_enabled = maybe\n[proxy_source_x]\nurl = ftp://me:key@h/\n[gateway]\nport = 70000\n";
    assert_eq!(
        errors(text),
        [
            "config.ini:2: [server] port: \"abc\" is not a number in 0..=65535",
            "config.ini:3: [server] api_token: *** has spaces or characters that are not ASCII, which no header can carry",
            "config.ini:6: [validator] validation_timeout_s: \"0\" is not a number of seconds in 0.05..=3600",
            "config.ini:7: [validator] validation_targets: \"http://a/ nonsense\" has \"nonsense\", which is not an http or https URL",
            "config.ini:9: [scheduler] stats_flush_interval_seconds: \"often\" is not a number of seconds in 0..=86400",
            "config.ini:11: [backup] stats_backup_enabled: \"maybe\" is neither true, yes, on or 1, nor false, no, off or 0",
            "config.ini:13: [proxy_source_x] url: \"ftp://***@h/\" is not an http, https or file URL, or a path",
            "config.ini:15: [gateway] port: \"70000\" is not a number in 0..=65535",
        ]
    );
}

#[test]
fn a_comment_behind_a_value_is_explained() {
    let errors = errors("[server]\nport = 80 ; web\n");
    assert!(errors[0].ends_with("0..=65535; comments stand on lines of their own"), "{errors:?}");
}

#[test]
fn an_error_in_the_environment_names_the_variable() {
    let errors = load_text("[server]\nport = 1\n", &[("SMARTPROXY_SERVER__PORT", "x")]).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "environment SMARTPROXY_SERVER__PORT: [server] port: \"x\" is not a number in 0..=65535"
    );
}

#[test]
fn a_listener_that_others_reach_must_say_who_may_call() {
    let server = "[server]\nhost = 0.0.0.0\n";
    let gateway = "[gateway]\nhost = ::\n";
    assert_eq!(
        errors(&format!("{server}{gateway}")),
        [
            "config.ini:2: [server] host: 0.0.0.0 can be reached from other machines; set api_token or allowed_ips in [server] to say who may call",
            "config.ini:4: [gateway] host: :: can be reached from other machines; set token in [gateway] or allowed_ips in [server] to say who may use it",
        ]
    );
    for allowed in [
        format!("{server}api_token = secret\n"),
        format!("{server}allowed_ips = 10.0.0.0/8\n{gateway}"),
        format!("{gateway}token = secret\n"),
        format!("{gateway}enabled = no\n"),
        "[server]\nhost = 127.9.9.9\n[gateway]\nhost = localhost\n".to_owned(),
        "[server]\nhost = [::1]\n[gateway]\nhost = ::ffff:127.0.0.1\n".to_owned(),
    ] {
        config(&allowed);
    }
}

#[test]
fn two_listeners_on_one_port_are_an_error_unless_the_system_chooses() {
    assert_eq!(
        errors("[server]\nport = 6943\n"),
        ["config.ini:2: [server] port: 6943 is the port of [gateway] already"]
    );
    config("[server]\nport = 0\n[gateway]\nport = 0\n");
}

#[test]
fn the_database_is_chosen_by_what_is_set() {
    let choice = |keys: &str| config(&format!("[database]\n{keys}\n")).database.choice;
    assert_eq!(choice("path = x.db"), DatabaseChoice::Sqlite { path: "x.db".into() });
    assert_eq!(choice("url = sqlite:///x.db"), DatabaseChoice::Sqlite { path: "/x.db".into() });
    let of_keys = choice("host = h\ndbname = d\nuser = u\npassword = 50%\n");
    assert_eq!(of_keys, choice("url = postgres://u:50%25@h:5432/d"));
    assert_eq!(of_keys, choice("url = postgres://u@h/d\npassword = 50%"));
    assert!(!format!("{of_keys:?}").contains("50%"));
}

#[test]
fn a_database_that_is_named_twice_or_by_half_is_an_error() {
    let problems = |keys: &str| errors(&format!("[database]\n{keys}\n")).join("\n");
    let both = "is set beside url, which names the database already; keep one of them";
    assert_eq!(problems("url = sqlite://x\npath = y"), format!("config.ini:3: [database] path: {both}"));
    assert_eq!(
        problems("url = postgres://u:p@h/d\npassword = y"),
        format!("config.ini:3: [database] password: {both}")
    );
    assert_eq!(
        problems("host = h\nurl = postgres://u@h/d"),
        format!("config.ini:2: [database] host: {both}")
    );
    assert_eq!(
        problems("path = x\nhost = h\ndbname = d\nuser = u"),
        "config.ini:2: [database] path: names an SQLite file, and host a PostgreSQL server; keep one of them"
    );
    assert_eq!(
        problems("password = p"),
        "config.ini:2: [database] host: is missing: PostgreSQL needs it, and password is set\n\
         config.ini:2: [database] dbname: is missing: PostgreSQL needs it, and password is set\n\
         config.ini:2: [database] user: is missing: PostgreSQL needs it, and password is set"
    );
}

#[test]
fn a_wrong_database_url_does_not_show_its_password() {
    let problems = errors("[database]\nurl = postgres://u:hunter2@h\n");
    assert_eq!(
        problems,
        ["config.ini:2: [database] url: *** has no dbname, as in postgres://user:password@host/dbname"]
    );
}

#[test]
fn the_default_pool_joins_the_list_and_repetitions_leave_it() {
    let pools = config("[sources]\npredefined_sources = a, b b,\n  c, a\ndefault_source = z\n").pools;
    assert_eq!(pools.names, ["a", "b b", "c", "z"]);
}

#[test]
fn a_pool_has_what_its_section_sets_and_else_what_all_have() {
    let text = "[sources]\npredefined_sources = Shop, my news\n[source_pool]\nselection_strategy = Tiered\n\
        proxy_cooldown_ms = 5000\nblocked_statuses = 429\nmax_pool_size = 50\n\
        [pool_Shop]\nselection_strategy = adaptive\nproxy_cooldown_ms = learned\nblocked_statuses = none\n\
        [pool_my news]\nmax_pool_size =\nblocked_statuses = 403, 429 403\nfailure_penalties = 1, 2\n\
        weighted_selection_enabled = yes\n[pool_extra]\nproxy_cooldown_ms = 0\n";
    let pools = config(text).pools;
    assert_eq!(pools.names, ["Shop", "my news", "default", "extra"]);
    let shop = pools.pool("Shop");
    assert_eq!((shop.strategy, shop.proxy_cooldown), (Strategy::Adaptive, None));
    assert_eq!(shop.blocked_statuses, [0_u16; 0]);
    let news = pools.pool("my news");
    assert_eq!((news.strategy, news.proxy_cooldown), (Strategy::Tiered, Some(Duration::from_secs(5))));
    assert_eq!((news.max_pool_size, news.is_weighted), (50, true));
    assert_eq!(
        (news.blocked_statuses.as_slice(), news.failure_penalties.as_slice()),
        (&[403, 429][..], &[1.0, 2.0][..])
    );
    assert_eq!(pools.pool("extra").proxy_cooldown, Some(Duration::ZERO));
    assert_eq!(pools.pool("whoever").name, "default");
}

#[test]
fn a_wrong_value_of_one_pool_is_an_error_with_its_section() {
    assert_eq!(
        errors(
            "[pool_a]\nselection_strategy = teired\nproxy_cooldown_ms = soon\nblocked_statuses = 403, 4o3\n\
             [pool_]\n[pool_a,b]\n"
        ),
        [
            "config.ini:2: [pool_a] selection_strategy: \"teired\" is not one of adaptive, tiered, uniform; did you mean tiered?",
            "config.ini:3: [pool_a] proxy_cooldown_ms: \"soon\" is not a number of milliseconds in 0..=86400000, or \"learned\"",
            "config.ini:4: [pool_a] blocked_statuses: \"403, 4o3\" has \"4o3\", which is not an HTTP status in 200..=599",
            "config.ini:5: [pool_] names a pool that is not a name without commas, at most 100 characters",
            "config.ini:6: [pool_a,b] names a pool that is not a name without commas, at most 100 characters",
        ]
    );
    let many: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    let problems = errors(&format!("[sources]\npredefined_sources = {}\n", many.join(",")));
    assert_eq!(
        problems,
        ["config.ini:2: [sources] predefined_sources: there are 1002 pools, and more than 1000 are too many"]
    );
}

#[test]
fn strategies_of_other_programs_are_read_with_a_warning_and_tiers_count_where_there_are_any() {
    let text = "[sources]\npredefined_sources = shop, news\n[source_pool]\nselection_strategy = softmax\n\
        softmax_temperature = 0.5\ntop_tier_size = 10\n[pool_news]\nmax_pool_size = 5\n[pool_Shop]\n[pool_maps]\n";
    assert_eq!(config(text).pools.pool("shop").strategy, Strategy::Adaptive);
    assert_eq!(
        warnings(text),
        [
            "config.ini: without effect: [source_pool] softmax_temperature, [source_pool] top_tier_size, [pool_news] max_pool_size; those of tiers and points count with selection_strategy = tiered",
            "config.ini:4: [source_pool] selection_strategy: \"softmax\" is not known here: without effect, the strategy is adaptive",
            "config.ini:9: [pool_Shop] adds a pool \"Shop\" that predefined_sources does not name; did you mean [pool_shop]?",
        ]
    );
    let tiered = "[source_pool]\ntop_tier_size = 10\n[pool_news]\nselection_strategy = tiered\nmax_pool_size = 5\n\
        [pool_maps]\nmax_pool_size = 5\n";
    assert_eq!(
        warnings(tiered),
        [
            "config.ini: without effect: [pool_maps] max_pool_size; those of tiers and points count with selection_strategy = tiered"
        ]
    );
}

#[test]
fn a_gap_of_a_pool_that_is_not_adaptive_is_without_effect() {
    assert_eq!(
        warnings("[pool_a]\nselection_strategy = tiered\nproxy_cooldown_ms = 5000\n"),
        ["config.ini:3: [pool_a] proxy_cooldown_ms: without effect: the pool is tiered, not adaptive"]
    );
    assert_eq!(warnings("[pool_a]\nproxy_cooldown_ms = 5000\n"), [""; 0]);
}

#[test]
fn events_are_not_written_into_the_database_nor_a_directory() {
    assert_eq!(
        errors("[database]\npath = /nowhere/a.db\n[logging]\nevents = /nowhere/a.db\n"),
        ["config.ini:4: [logging] events: /nowhere/a.db is the database"]
    );
    assert_eq!(
        errors("[logging]\nevents = /\n"),
        ["config.ini:2: [logging] events: / is a directory; name a file in it"]
    );
}

#[test]
fn variables_set_what_one_pool_has_of_its_own_whatever_its_name() {
    let variables = [
        ("SMARTPROXY_POOL_MY_NEWS__PROXY_COOLDOWN_MS", "7"),
        ("SMARTPROXY_POOL_NEW__SELECTION_STRATEGY", "uniform"),
    ];
    let file = "[sources]\npredefined_sources = My News\n";
    let pools = load_text(file, &variables).unwrap().config.pools;
    assert_eq!(pools.names, ["My News", "default", "new"]);
    assert_eq!(pools.pool("My News").proxy_cooldown, Some(Duration::from_millis(7)));
    assert_eq!(pools.pool("new").strategy, Strategy::Uniform);
    let named_by_variable = [variables[0], ("SMARTPROXY_SOURCES__PREDEFINED_SOURCES", "my-news")];
    let pools = load_text("", &named_by_variable).unwrap().config.pools;
    assert_eq!(pools.names, ["my-news", "default"]);
    let ambiguous = load_text("[sources]\npredefined_sources = my news, my-news\n", &variables).unwrap_err();
    assert!(ambiguous.to_string().contains("could mean [pool_my news] or [pool_my-news]"), "{ambiguous}");
}

#[test]
fn several_targets_win_over_one() {
    let text = "[validator]\nvalidation_target = http://a/\nvalidation_targets = http://b/,https://c/x\n  http://d/\n";
    let targets = config(text).validator.targets;
    assert_eq!(
        targets.iter().map(url::Url::as_str).collect::<Vec<_>>(),
        ["http://b/", "https://c/x", "http://d/"]
    );
}

#[test]
fn connecting_never_takes_longer_than_the_probe() {
    let validator = config("[validator]\nvalidation_timeout_s = 2.5\n").validator;
    assert_eq!((validator.timeout, validator.connect_timeout), (Duration::from_millis(2500), None));
}

#[test]
fn feeds_are_read_with_their_keys() {
    let text = "[DEFAULT]\nupdate_interval_minutes = 5\nbase = http://h\n[proxy_source_A b]\nurl = %(base)s/%20x\n\
        default_protocol = SOCKS5\nheaders =\n  X-Key: 1\n  Accept: */*\n[fetcher]\nallow_private_proxies = yes\n\
        [proxy_source_b]\nurl = lists/b.txt\nallow_private = no\n";
    let feeds = config(text).feeds;
    assert_eq!(feeds[0].section(), "proxy_source_A b");
    assert_eq!(feeds[0].location, FeedLocation::Http("http://h/%20x".parse().unwrap()));
    assert_eq!(feeds[0].update_interval, Duration::from_mins(5));
    assert_eq!(feeds[0].default_protocol, Some(smartproxy_core::Protocol::Socks5));
    assert_eq!(feeds[0].headers.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["X-Key", "Accept"]);
    assert_eq!(feeds[1].location, FeedLocation::File("lists/b.txt".into()));
    assert_eq!((feeds[0].allow_private, feeds[1].allow_private), (true, false));
}

#[test]
fn a_pool_may_name_a_target_of_its_own_with_what_is_expected() {
    let text = "[pool_shop]\nprobe_target = https://shop.example/cart?a=1\nprobe_method = head\n\
        probe_headers =\n  Accept: text/html\n  Cookie: a=b\nprobe_statuses = 200, 301-302\nprobe_interval_minutes = 5\n\
        [pool_search]\nprobe_target = http://search.example/\nprobe_must_contain = (?i)results\n\
        probe_must_not_contain = captcha|robot\nprobe_min_bytes = 500\n[pool_plain]\n";
    let pools = config(text).pools;
    let shop = pools.pool("shop").probe.clone().unwrap();
    assert_eq!((shop.target.as_str(), shop.method), ("https://shop.example/cart?a=1", ProbeMethod::Head));
    assert_eq!((shop.headers.len(), shop.interval), (2, Duration::from_mins(5)));
    assert!(shop.statuses.contain(302) && !shop.statuses.contain(204));
    let search = pools.pool("search").probe.clone().unwrap();
    assert_eq!(
        (search.method, search.min_bytes, search.interval),
        (ProbeMethod::Get, 500, Duration::from_mins(30))
    );
    assert!(search.statuses.contain(204) && !search.statuses.contain(302));
    assert!(
        search.must_contain.unwrap().is_in(b"12 Results")
            && search.must_not_contain.unwrap().is_in(b"a robot")
    );
    assert_eq!((&pools.pool("plain").probe, &pools.pool("default").probe), (&None, &None));
}

#[test]
fn wrong_probes_of_a_pool_are_named_by_section_and_key() {
    let text = "[pool_a]\nprobe_target = ftp://x/\nprobe_statuses = 99\nprobe_method = PUT\n[pool_b]\n\
        probe_must_contain = x\nprobe_interval_minutes = 5\n[pool_c]\nprobe_target = http://u:hunter2@h/\nprobe_method = HEAD\n\
        probe_must_not_contain = x\nprobe_min_bytes = 5\n[pool_d]\nprobe_target = http://h:0/\nprobe_must_contain = (x\n\
        probe_headers =\n  Host: hunter2\nprobe_min_bytes = 300000\nprobe_interval_minutes = 0\n";
    assert_eq!(
        errors(text),
        [
            "config.ini:2: [pool_a] probe_target: \"ftp://x/\" is not an http or https URL",
            "config.ini:3: [pool_a] probe_statuses: \"99\" has \"99\", which is neither a status in 200..=599 nor a range such as 200-299",
            "config.ini:4: [pool_a] probe_method: \"PUT\" is not one of GET, HEAD, POST",
            "config.ini:6: [pool_b] probe_must_contain: needs probe_target, the URL that this pool's probes ask for",
            "config.ini:7: [pool_b] probe_interval_minutes: needs probe_target, the URL that this pool's probes ask for",
            "config.ini:9: [pool_c] probe_target: has a login, which is not supported; probe_headers can send one",
            "config.ini:11: [pool_c] probe_must_not_contain: contradicts probe_method = HEAD, whose answers have no body",
            "config.ini:12: [pool_c] probe_min_bytes: contradicts probe_method = HEAD, whose answers have no body",
            "config.ini:14: [pool_d] probe_target: has port 0, where nobody listens",
            "config.ini:15: [pool_d] probe_must_contain: \"(x\" is not a regular expression: unclosed group",
            "config.ini:16: [pool_d] probe_headers: *** has Host, which a probe sets itself or must not send",
            "config.ini:18: [pool_d] probe_min_bytes: \"300000\" is not a number in 1..=262144",
            "config.ini:19: [pool_d] probe_interval_minutes: \"0\" is not a number of minutes in 0.01..=43200",
        ]
    );
    assert_eq!(config("[DEFAULT]\nprobe_method = HEAD\n[pool_a]\n").pools.pool("a").probe, None);
    let warned = warnings("[pool_a]\nselection_strategy = uniform\nprobe_target = http://h/\n");
    assert_eq!(warned.len(), 1);
    assert!(
        warned[0].starts_with("config.ini:3: [pool_a] probe_target: what these probes find is shown"),
        "{warned:?}"
    );
}

#[test]
fn public_feeds_count_only_when_nobody_names_any() {
    assert_eq!(config("[server]\n").feeds, []);
    assert_eq!(
        built_in(&[("SMARTPROXY_SERVER__PORT", "1")]).config.feeds.len(),
        defaults::PUBLIC_FEEDS.len()
    );
    let loaded = built_in(&[("SMARTPROXY_PROXY_SOURCE_MINE__URL", "list.txt")]);
    assert_eq!(
        loaded.config.feeds.iter().map(FeedConfig::section).collect::<Vec<_>>(),
        ["proxy_source_mine"]
    );
}

#[test]
fn what_is_unknown_or_ignored_is_a_warning_with_the_nearest_name() {
    let text = "[DEFAULT]\nmy_dir = x\n[server]\nprot = 1\ntoken = x\nxyzzy = 1\n[Server]\n[sever]\nport = 1\n\
        [proxy_sorce_a]\nurl = x\n[proxy_source_b]\n[pool_google]\nx = 1\n[zzz]\n\
        [source_pool]\nelo_k = 32\nmax_pool_size = 100\nproxy_cooldown_ms = 5\n";
    assert_eq!(
        warnings(text),
        [
            "config.ini: without effect: [source_pool] elo_k, [source_pool] max_pool_size; those of tiers and points count with selection_strategy = tiered",
            "config.ini:4: [server] prot: is unknown; did you mean port?",
            "config.ini:5: [server] token: is unknown; it belongs into [gateway]",
            "config.ini:6: [server] xyzzy: is unknown",
            "config.ini:7: [Server] is unknown; names of sections are case-sensitive: [server]",
            "config.ini:8: [sever] is unknown; did you mean [server]?",
            "config.ini:10: [proxy_sorce_a] is unknown; did you mean [proxy_source_NAME]?",
            "config.ini:12: [proxy_source_b] has no url and is ignored",
            "config.ini:14: [pool_google] x: is unknown",
            "config.ini:15: [zzz] is unknown",
        ]
    );
}

#[test]
fn a_variable_with_one_underscore_is_noticed() {
    let loaded = load_text("", &[("SMARTPROXY_SERVER_PORT", "1"), ("SMARTPROXY_HOME", "x")]).unwrap();
    assert_eq!(
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "environment SMARTPROXY_SERVER_PORT: is ignored; did you mean SMARTPROXY_SERVER__PORT, with two underscores?"
        ]
    );
}

#[test]
fn a_threshold_above_the_number_of_targets_is_a_warning() {
    let text = "[validator]\nvalidation_success_threshold = 3\n";
    assert!(warnings(text)[0].contains("there are 1 targets only"));
}

#[test]
fn a_file_full_of_nonsense_is_answered_quickly() {
    let many = |line: fn(usize) -> String| (0..20_000).map(line).collect::<Vec<_>>().join("\n");
    assert_eq!(warnings(&many(|n| format!("[proxy_sourcf_{n}]\nx:1"))).len(), 100);
    assert_eq!(warnings(&format!("[server]\n{}", many(|n| format!("urk{n}=x")))).len(), 100);
    assert_eq!(errors(&many(|n| format!("[proxy_source_{n}]\nurl=ftp://x"))).len(), 100);
}

#[test]
fn show_says_where_each_value_comes_from_and_hides_secrets() {
    let text = "[server]\nport = 7000\napi_token = hunter2\n[database]\nurl = postgres://u:hunter2@h/d?x=hunter2\n\
        [proxy_source_a]\nurl = http://me:hunter2@h/100%25\nheaders =\n  X-Key: hunter2\n  X-Two: hunter2\n";
    let loaded = load_text(text, &[("SMARTPROXY_SERVER__TIMEZONE", "Europe/Berlin")]).unwrap();
    let shown = show(&loaded);
    for part in [
        "[server]\n; default\nhost = 127.0.0.1\n; config.ini:2\nport = 7000\n; config.ini:3\napi_token = ***\n; default\n",
        "; environment SMARTPROXY_SERVER__TIMEZONE\ntimezone = Europe/Berlin\n",
        "; config.ini:5\nurl = postgres://***@h/d?***\n",
        "[proxy_source_a]\n; config.ini:7\nurl = http://***@h/100%%25\n",
        "; config.ini:8\nheaders = X-Key: ***\n    X-Two: ***\n",
    ] {
        assert!(shown.contains(part), "{part}\n--- in ---\n{shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn what_show_prints_reads_back_as_the_same_configuration() {
    let text = "[DEFAULT]\nd = x\n[validator]\nvalidation_targets =\n  http://a/%%20\n\n  http://b/\n[sources]\n\
        predefined_sources = b, c\n[fetcher]\nallow_private_proxies = 1\n[proxy_source_a]\nurl = %(d)s/é.txt\n\
        [source_pool]\nproxy_cooldown_ms = 1500\n[pool_B b]\nselection_strategy = tiered\n[pool_c]\nprobe_target = http://h/%%25\nprobe_must_contain = a%%\n[database]\nhost = h\ndbname = d\nuser = u\n";
    for loaded in [load_text(text, &[]).unwrap(), built_in(&[])] {
        let again = load_text(&show(&loaded), &[]).unwrap();
        assert_eq!(again.config, loaded.config);
        assert_eq!(again.warnings, []);
    }
}
