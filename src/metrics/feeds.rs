//! What feeds are good for, as it was counted last. Labels are feeds and reasons.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};
use smartproxy_core::life::MedianLife;
use smartproxy_core::list::Rejection;

use crate::feeds::FeedState;
use crate::pools::FeedCount;

/// The figures of every feed, to be registered.
pub(super) fn collect(feeds: &[FeedState], counts: &BTreeMap<String, FeedCount>) -> Vec<Box<dyn Collector>> {
    let gauge = |name: &str, help: &str, value: &dyn Fn(&FeedState, &FeedCount) -> Option<u64>| {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &["feed"]).expect("names and labels are valid");
        for (state, count) in with_counts(feeds, counts) {
            if let Some(value) = value(state, &count) {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                gauge.with_label_values(&[state.feed.name.as_str()]).set(value);
            }
        }
        Box::new(gauge) as Box<dyn Collector>
    };
    let counter = |name: &str, help: &str, value: &dyn Fn(&FeedState) -> u64| {
        let counter =
            IntCounterVec::new(Opts::new(name, help), &["feed"]).expect("names and labels are valid");
        for state in feeds {
            counter.with_label_values(&[state.feed.name.as_str()]).inc_by(value(state));
        }
        Box::new(counter) as Box<dyn Collector>
    };
    let rejected = IntGaugeVec::new(
        Opts::new(
            "smartproxy_feed_rejected_entries",
            "Entries of the last list that were not taken, by feed and reason.",
        ),
        &["feed", "reason"],
    )
    .expect("names and labels are valid");
    for state in feeds {
        for reason in Rejection::ALL {
            let n = state.saved.record.list.rejected.count(reason);
            let n = i64::try_from(n).unwrap_or(i64::MAX);
            rejected.with_label_values(&[state.feed.name.as_str(), reason.as_str()]).set(n);
        }
    }
    vec![
        Box::new(rejected),
        gauge(
            "smartproxy_feed_lines",
            "Places of the last list that were looked at, by feed.",
            &|state, _| Some(state.saved.record.list.lines),
        ),
        gauge("smartproxy_feed_listed_proxies", "Proxies on the last list, by feed.", &|state, _| {
            Some(state.saved.proxies_on_list)
        }),
        gauge(
            "smartproxy_feed_new_proxies",
            "Proxies that the last list was the first to name, by feed.",
            &|state, _| Some(state.saved.record.list.new),
        ),
        gauge("smartproxy_feed_unique_proxies", "Proxies that no other list names, by feed.", &|_, count| {
            Some(count.unique as u64)
        }),
        gauge("smartproxy_feed_live_proxies", "Live proxies on the list, by feed.", &|_, count| {
            Some(count.listed_live as u64)
        }),
        gauge(
            "smartproxy_feed_median_life_seconds",
            "Time for which half of the proxies on the list stay alive, by feed; at least this long where most are alive.",
            &|state, count| match state.saved.record.deeds.lives.median(&count.ages) {
                MedianLife::Unknown => None,
                MedianLife::Is(life) | MedianLife::AtLeast(life) => Some(life.as_secs()),
            },
        ),
        gauge(
            "smartproxy_feed_paused",
            "1 while the feed is paused because its proxies never work, else 0.",
            &|state, _| Some(u64::from(state.saved.record.watch.paused_since.is_some())),
        ),
        counter(
            "smartproxy_feed_good_handouts_total",
            "Successes of proxies that this feed was the first to name.",
            &|state| state.saved.record.deeds.good_handouts,
        ),
        counter(
            "smartproxy_feed_bad_handouts_total",
            "Failures of proxies that this feed was the first to name.",
            &|state| state.saved.record.deeds.bad_handouts,
        ),
        counter(
            "smartproxy_feed_bytes_total",
            "Bytes of lists that came whole, before decompression.",
            &|state| state.saved.record.deeds.wire_bytes,
        ),
    ]
}

fn with_counts<'a>(
    feeds: &'a [FeedState],
    counts: &BTreeMap<String, FeedCount>,
) -> impl Iterator<Item = (&'a FeedState, FeedCount)> {
    feeds.iter().map(|state| (state, counts.get(&state.feed.name).copied().unwrap_or_default()))
}
