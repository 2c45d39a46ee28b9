//! `GET /api/overview`: is it healthy, what is wrong and what to do about it, and the numbers behind that.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use smartproxy_core::engine::Counts;

use super::Api;
use super::details::share_row;
use crate::clock;
use crate::feeds::FeedState;
use crate::metrics::percent;
use crate::pools::{BadProxy, PoolRow, PoolSituation, Situation};

/// Proxies that fail clients most, at most this many.
const MOST_BAD: usize = 5;
/// With fewer reports in ten minutes a success rate says little.
const ENOUGH_REPORTS: u64 = 20;
/// A pool below this success rate has a problem worth naming, in percent.
const LOW_RATE: f64 = 50.0;
/// A pool that believes its target to be down more than this has a problem.
const TARGET_DOWN: f64 = 0.5;
/// With fewer live proxies than this the service hangs by a thread.
const FEW_LIVE: usize = 5;
/// Most feeds that are named one by one among the problems.
const MOST_FEEDS: usize = 5;
/// The same of pools whose targets are down.
const MOST_POOLS: usize = 5;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// Nothing is wrong.
    Ok,
    /// Not there yet.
    Starting,
    /// Worse than it could be.
    Warn,
    /// Not doing its job, or about not to.
    Bad,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Starting => "starting",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// Something that is wrong now.
#[derive(Debug)]
struct Problem {
    level: Level,
    what: String,
    why: String,
    advice: String,
    /// Where in the dashboard to look.
    link: Option<String>,
}

pub(super) async fn overview(State(api): State<Arc<Api>>) -> Response {
    let situation = api.pools.situation();
    let feeds = api.feeds.states();
    let pools = api.pools.pool_rows();
    let due = api.pools.backlog(&api.rules.load().rules).due;
    let problems = problems(&api, &situation, &feeds, &pools);
    let (level, words) = health(&situation, &feeds, &problems);
    let counts = situation.counts;
    let ready = pools.iter().map(|pool| pool.view.ready).max().unwrap_or(0);
    Json(json!({
        "at_ms": clock::now().millis(),
        "started_at_ms": api.started_at.millis(),
        "version": env!("CARGO_PKG_VERSION"),
        "zone": api.zone.load().iana_name().unwrap_or("UTC"),
        "health": { "level": level.as_str(), "text": words },
        "problems": problems.iter().map(Problem::row).collect::<Vec<_>>(),
        "counts": {
            "known": counts.known, "probed": counts.probed, "live": counts.live, "premium": situation.premium,
            "banned": situation.bans, "quarantined": counts.quarantined, "feeds": feeds.len(),
        },
        "is_validating": api.validation.is_validating.load(Ordering::Relaxed),
        "funnel": {
            "known": counts.known,
            "due": due,
            "probed": counts.probed,
            "connected": situation.connected.max(counts.live),
            "passed": counts.live,
            "quarantined": counts.quarantined_live,
            "pool": ready.min(counts.live),
        },
        "probe_results": situation.results.iter().map(|(result, n)| ((*result).to_owned(), json!(n))).collect::<Map<_, _>>(),
        "pools": pools.iter().map(|pool| pool_row(pool, &situation)).collect::<Vec<_>>(),
        "bad_proxies": api.pools.bad_proxies(MOST_BAD).iter().map(bad_row).collect::<Vec<_>>(),
        "gateway": gateway(&api, &pools),
        "ticks": api.live.ticks(),
    }))
    .into_response()
}

/// What went through the gateway since the start.
fn gateway(api: &Api, pools: &[PoolRow]) -> Value {
    let sum = |of: fn(&PoolRow) -> u64| pools.iter().map(of).sum::<u64>();
    json!({
        "connections": api.metrics.gateway.open_connections(),
        "requests": sum(|pool| pool.view.traffic.requests),
        "up_bytes": sum(|pool| pool.view.traffic.up_bytes),
        "down_bytes": sum(|pool| pool.view.traffic.down_bytes),
        "sessions": sum(|pool| pool.view.sessions as u64),
    })
}

fn pool_row(pool: &PoolRow, situation: &Situation) -> Value {
    let lately = situation.pools.iter().find(|known| known.name == pool.name);
    let (succeeded, failed) = lately.map_or((0, 0), |lately| (lately.succeeded, lately.failed));
    json!({
        "source": pool.name,
        "is_default": pool.is_default,
        "strategy": pool.view.strategy.as_str(),
        "ready": pool.view.ready,
        "cooling": pool.view.cooling,
        "resting": pool.view.resting,
        "handouts": pool.view.handouts.iter().map(|(_, n)| n).sum::<u64>(),
        "handouts_by_tier":
            pool.view.handouts.iter().map(|(tier, n)| (tier.as_str().to_owned(), json!(n))).collect::<Map<_, _>>(),
        "target_down": (pool.view.target_down * 100.0).round() / 100.0,
        "lately": {
            "total_requests": succeeded + failed,
            "total_success": succeeded,
            "success_rate": percent(succeeded, succeeded + failed),
        },
    })
}

fn bad_row(bad: &BadProxy) -> Value {
    let mut row = share_row(&bad.share);
    let by_kind = bad
        .failed
        .iter()
        .map(|(kind, n)| (kind.map_or("unknown", smartproxy_core::FailureKind::as_str).to_owned(), json!(n)));
    row["failed_lately"] = json!(bad.failed.iter().map(|(_, n)| n).sum::<usize>());
    row["failed_lately_by_kind"] = Value::Object(by_kind.collect());
    row["last_failed_at_ms"] = json!(bad.last_failed_at.millis());
    row["last_probe"] = json!(bad.last_probe);
    row
}

impl Problem {
    fn new(level: Level, what: impl Into<String>, why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level, what: what.into(), why: why.into(), advice: advice.into(), link: None }
    }

    fn at(mut self, link: impl Into<String>) -> Self {
        self.link = Some(link.into());
        self
    }

    fn row(&self) -> Value {
        json!({
            "level": self.level.as_str(), "what": self.what, "why": self.why, "do": self.advice, "link": self.link,
        })
    }
}

fn problems(api: &Api, situation: &Situation, feeds: &[FeedState], pools: &[PoolRow]) -> Vec<Problem> {
    let mut all = Vec::new();
    if let Some(trouble) = api.store_health.public_trouble() {
        all.push(
            Problem::new(
                Level::Bad,
                "The database is away.",
                format!("In short: {trouble}. What is learned waits in memory; handouts and reports go on."),
                "Check that the database of [database] runs and can be reached. The log has its error.",
            )
            .at("#/log?level=warn"),
        );
    }
    let Counts { known, probed, live, .. } = situation.counts;
    if feeds.is_empty() && known == 0 {
        all.push(Problem::new(
            Level::Bad,
            "There are no feeds and no proxies.",
            "Proxies come from feeds, or from a list that is imported.",
            "Add a [proxy_source_NAME] section with a url to config.ini and reload, or run: smartproxy import FILE",
        ));
    }
    if live == 0 && probed > 0 && api.validation.has_validated.load(Ordering::Relaxed) {
        all.push(
            Problem::new(
                Level::Bad,
                "No proxy works at the moment.",
                format!("Of {known} known proxies, {probed} were probed; none passed its last probe."),
                "See why probes fail below. When all fail alike, check [validator] validation_target and this machine's \
                 own network.",
            )
            .at("#/proxies?liveness=dead"),
        );
    } else if live > 0 && live == situation.counts.quarantined_live {
        all.push(
            Problem::new(
                Level::Bad,
                "Every proxy that works tampers with what it carries.",
                format!("{} in quarantine and not handed out.", several(live, "live proxy is", "live proxies are")),
                "Add feeds. What they do is named in the list of proxies; [validator] allowed_tampering allows it.",
            )
            .at("#/proxies?state=quarantine"),
        );
    } else if live > 0 && live < FEW_LIVE {
        all.push(
            Problem::new(
                Level::Warn,
                format!("Only {} works.", several(live, "proxy", "proxies")),
                format!("{known} are known."),
                "Add feeds. Until then callers share these few, and targets may ban them.",
            )
            .at("#/feeds"),
        );
    }
    let limits = &api.rules.load().limits;
    if let (Some(limit), true) = (limits.bytes_per_day(), limits.is_spent()) {
        all.push(Problem::new(
            Level::Warn,
            "Probing pauses until midnight UTC: the bytes of this day are spent.",
            format!("Probes have sent and received {} of {limit} bytes.", limits.bytes_today()),
            "Live proxies stay and are handed out. [validator] max_bytes_per_day allows more.",
        ));
    }
    if let Some(outage) = &*api.validation.outage.lock() {
        all.push(
            Problem::new(
                Level::Bad,
                "No proxy can be probed: none of the validation targets answers.",
                format!("Asked without a proxy, {}.", outage.words),
                "Live proxies stay and are handed out; nothing is learned from failed probes until this is over. Check this \
                 machine's network and [validator] validation_target.",
            )
            .at("#/log?level=warn"),
        );
    } else if let ill = api.validation.targets.lock().iter().filter(|(_, is_well)| !is_well).count()
        && ill > 0
    {
        all.push(Problem::new(
            Level::Warn,
            format!("{} not answer.", several(ill, "validation target does", "validation targets do")),
            "Asked without a proxy, it gives no good answer in time; it is left out, and the others decide.",
            "Check the targets of [validator] validation_targets, or name others.",
        ));
    }
    let outages = api.validation.pool_outages.lock().clone();
    all.extend(outages.iter().take(MOST_POOLS).map(|(pool, outage)| {
        Problem::new(
            Level::Bad,
            format!("The target of pool {pool:?} is down."),
            format!("Asked without a proxy, {}.", outage.words),
            format!(
                "Open it without a proxy. Until it answers, failed probes there are not held against proxies. When it has \
                 changed, change the probe_ keys of [pool_{pool}]."
            ),
        )
        .at(pool_link(pool))
    }));
    all.extend(feed_problems(feeds));
    all.extend(pools.iter().filter_map(|pool| {
        let lately = situation.pools.iter().find(|known| known.name == pool.name)?;
        pool_problem(pool, lately, live, outages.contains_key(&pool.name))
    }));
    all.sort_by_key(|problem| std::cmp::Reverse(problem.level));
    all
}

fn pool_link(name: &str) -> String {
    let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    format!("#/pools?source={name}")
}

fn feed_problems(feeds: &[FeedState]) -> Vec<Problem> {
    let failing: Vec<&FeedState> = feeds.iter().filter(|state| !state.saved.last_error.is_empty()).collect();
    let mut all = Vec::new();
    for state in failing.iter().take(MOST_FEEDS) {
        let (name, saved) = (&state.feed.name, &state.saved);
        let (what, advice) = if saved.consecutive_failures > 0 {
            let times = match saved.consecutive_failures {
                1 => String::new(),
                n => format!(" {n} times in a row"),
            };
            (
                format!("Feed {name:?} failed{times}."),
                "It is tried again by itself, less and less often. Check its url, or remove its section.",
            )
        } else {
            (
                format!("Feed {name:?} is not believed."),
                "Its list shrank suddenly; the old one holds until it is seen a few times.",
            )
        };
        all.push(Problem::new(Level::Warn, what, format!("{}.", saved.last_error), advice).at("#/feeds"));
    }
    if failing.len() > MOST_FEEDS {
        let more = several(failing.len() - MOST_FEEDS, "more feed fails", "more feeds fail");
        all.push(Problem::new(Level::Warn, format!("{more}."), "", "See Feeds.").at("#/feeds"));
    }
    all
}

fn pool_problem(pool: &PoolRow, lately: &PoolSituation, live: usize, is_known_down: bool) -> Option<Problem> {
    let name = &pool.name;
    let reports = lately.succeeded + lately.failed;
    let rate = percent(lately.succeeded, reports);
    let link = pool_link(name);
    let problem = if pool.view.target_down > TARGET_DOWN && !is_known_down {
        Problem::new(
            Level::Bad,
            format!("The target of pool {name:?} seems to be down."),
            format!(
                "Proxies that worked there a moment ago fail together; {:.0}% sure.",
                100.0 * pool.view.target_down
            ),
            "Open the target without a proxy. Until it answers, failures there are not held against proxies.",
        )
    } else if reports >= ENOUGH_REPORTS && rate < LOW_RATE {
        Problem::new(
            Level::Warn,
            format!("Pool {name:?}: only {rate:.0}% of requests succeed."),
            format!(
                "{} of the last ten minutes; {live} proxies are live.",
                several(reports as usize, "report", "reports")
            ),
            "See its worst proxies and what clients say of them. When most are blocked, the target wants other proxies: \
             add feeds, or slow down.",
        )
    } else if pool.view.ready == 0 && live > 0 && reports > 0 {
        Problem::new(
            Level::Warn,
            format!("Pool {name:?} is nearly empty."),
            format!(
                "Of {live} live proxies none is ready: {} cool down after use, {} rest after failures.",
                pool.view.cooling, pool.view.resting
            ),
            "More is asked for than the proxies can take. Add feeds, or ask less often.",
        )
    } else {
        return None;
    };
    Some(problem.at(link))
}

/// Level and one line of words.
fn health(situation: &Situation, feeds: &[FeedState], problems: &[Problem]) -> (Level, String) {
    let Counts { known, probed, live, .. } = situation.counts;
    let worst = problems.iter().map(|problem| problem.level).max().unwrap_or(Level::Ok);
    let (succeeded, failed) =
        situation.pools.iter().fold((0, 0), |sum, pool| (sum.0 + pool.succeeded, sum.1 + pool.failed));
    let rate = if succeeded + failed == 0 {
        "no client has reported anything in the last ten minutes".to_owned()
    } else {
        format!(
            "{:.0}% of requests succeeded in the last ten minutes",
            percent(succeeded, succeeded + failed)
        )
    };
    let live_words = format!("{} of {known} known", several(live, "proxy works", "proxies work"));
    match (known, probed, live, worst) {
        (0, ..)
            if feeds
                .iter()
                .any(|state| state.saved.fetched_at.is_none() && state.saved.last_error.is_empty()) =>
        {
            (Level::Starting, format!("Starting: fetching {}.", several(feeds.len(), "feed", "feeds")))
        }
        (0, ..) => (Level::Bad, "Nothing to hand out: no proxies are known.".to_owned()),
        (_, 0, 0, _) => (
            Level::Starting,
            format!(
                "Starting: {} being probed for the first time.",
                several(known, "proxy is", "proxies are")
            ),
        ),
        (_, _, 0, Level::Ok | Level::Starting | Level::Warn) => {
            (Level::Starting, format!("Starting: {probed} of {known} proxies probed, none has passed yet."))
        }
        (_, _, 0, Level::Bad) => (Level::Bad, format!("Not working: none of {known} known proxies works.")),
        (_, _, _, Level::Ok | Level::Starting) => (Level::Ok, format!("Healthy: {live_words}; {rate}.")),
        (_, _, _, Level::Warn) => (
            Level::Warn,
            format!(
                "Working, with {}: {live_words}; {rate}.",
                several(problems.len(), "problem", "problems")
            ),
        ),
        (_, _, _, Level::Bad) => (Level::Bad, format!("In trouble: {live_words}; {rate}.")),
    }
}

fn several(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}
