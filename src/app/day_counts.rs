//! What the days that somebody looks at have counted: an open page asks every few seconds, and a day of many pools is
//! 72,000 rows.
//!
//! A day is read whole once, today's before anybody asks, and after that only the minutes that were written since. What we
//! write is known here. What others write into the same database (the Python service may run beside us) is the minutes of now, so the last ones are
//! read again each time, and everything is after a while.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use smartproxy_core::Timestamp;
use smartproxy_core::saved::MinuteCount;
use smartproxy_store::{PoolCounts, SlotCount, Store, StoreError};
use tokio::sync::Mutex;

const MINUTE: Duration = Duration::from_mins(1);
const MINUTE_MS: i64 = 60_000;
/// How late others write a minute: the Python service does so once a minute.
const LATE_MS: i64 = 5 * MINUTE_MS;
/// A day is read whole again after this time, whoever wrote what.
const WHOLE_AGAIN_MS: i64 = 10 * MINUTE_MS;
/// Today's is read again ahead of that, so that nobody waits for it.
const AHEAD_MS: i64 = 8 * MINUTE_MS;
/// Days that are kept.
const MOST_DAYS: usize = 3;
/// Minutes of pools in them, 24 bytes each: about 10 MiB. A day of more is read each time.
const MOST_COUNTS: usize = 400_000;

/// Days as they were read last.
pub(super) struct DayCounts {
    /// The one that was asked for last stands last.
    days: Mutex<Vec<Day>>,
    /// Minutes from this one on may have been written since the last look, in Unix milliseconds.
    written_from: AtomicI64,
    /// When the latest day began that is too large to be kept, in Unix milliseconds.
    too_large: AtomicI64,
}

struct Day {
    from: Timestamp,
    to: Timestamp,
    /// By pool, in slots of a minute.
    pools: BTreeMap<String, Vec<SlotCount>>,
    /// Minutes from this one on are to be read again, in Unix milliseconds.
    stale_from: i64,
    read_whole_at: Timestamp,
    read_at: Timestamp,
}

impl Default for DayCounts {
    fn default() -> Self {
        Self {
            days: Mutex::default(),
            written_from: AtomicI64::new(i64::MAX),
            too_large: AtomicI64::new(i64::MIN),
        }
    }
}

impl DayCounts {
    /// To be called before `minutes` are written, and again after it, however it went: in between they may be read.
    pub(super) fn are_written(&self, minutes: &[MinuteCount]) {
        if let Some(first) = minutes.iter().map(|count| count.minute.millis()).min() {
            self.written_from.fetch_min(first, Ordering::SeqCst);
        }
    }

    /// To be called after anything else has changed.
    pub(super) async fn forget(&self) {
        self.days.lock().await.clear();
    }

    /// As [`Store::load_counts`].
    pub(super) async fn load(
        &self,
        store: &dyn Store,
        (from, to): (Timestamp, Timestamp),
        slot: Duration,
        now: Timestamp,
    ) -> Result<Vec<PoolCounts>, StoreError> {
        let minutes = u32::try_from(slot.as_secs() / 60).unwrap_or(0);
        if minutes == 0 || slot != MINUTE * minutes || from.millis() % MINUTE_MS != 0 {
            return store.load_counts(from, to, slot).await;
        }
        self.ask(store, (from, to), now, |day| day.add_up(minutes)).await
    }

    /// As [`Store::load_minutes`].
    pub(super) async fn load_pool(
        &self,
        store: &dyn Store,
        pool: &str,
        (from, to): (Timestamp, Timestamp),
        now: Timestamp,
    ) -> Result<Vec<MinuteCount>, StoreError> {
        if from.millis() % MINUTE_MS != 0 {
            return store.load_minutes(pool, from, to).await;
        }
        let minute = |count: &SlotCount| MinuteCount {
            pool: pool.to_owned(),
            minute: from.plus(MINUTE * count.slot),
            successes: count.successes,
            failures: count.failures,
        };
        self.ask(store, (from, to), now, |day| {
            day.pools.get(pool).map_or_else(Vec::new, |counts| counts.iter().map(minute).collect())
        })
        .await
    }

    /// What `answer` says of that day as it is now.
    async fn ask<T>(
        &self,
        store: &dyn Store,
        (from, to): (Timestamp, Timestamp),
        now: Timestamp,
        answer: impl FnOnce(&Day) -> T,
    ) -> Result<T, StoreError> {
        let mut days = self.days.lock().await;
        // It stays with the days when this future is dropped while it reads.
        let written_from = self.written_from.swap(i64::MAX, Ordering::SeqCst);
        for day in &mut *days {
            day.stale_from = day.stale_from.min(written_from);
        }
        days.retain(|day| day.is_younger(WHOLE_AGAIN_MS, now));
        let known = days.iter().position(|day| (day.from, day.to) == (from, to));
        let day = match known {
            Some(at) => {
                days[at].catch_up(store, now).await?;
                days.remove(at)
            }
            None => Day::read(store, from, to, now).await?,
        };
        let answer = answer(&day);
        Self::keep(&mut days, day);
        Ok(answer)
    }

    /// Reads a day before somebody asks for it.
    pub(super) async fn read_ahead(
        &self,
        store: &dyn Store,
        (from, to): (Timestamp, Timestamp),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut days = self.days.lock().await;
        let is_kept = |day: &Day| (day.from, day.to) == (from, to) && day.is_younger(AHEAD_MS, now);
        if days.iter().any(is_kept) || self.too_large.load(Ordering::Relaxed) == from.millis() {
            return Ok(());
        }
        let day = Day::read(store, from, to, now).await?;
        if day.len() > MOST_COUNTS {
            self.too_large.store(from.millis(), Ordering::Relaxed);
        }
        days.retain(|day| (day.from, day.to) != (from, to));
        Self::keep(&mut days, day);
        Ok(())
    }

    fn keep(days: &mut Vec<Day>, day: Day) {
        days.push(day);
        while days.len() > MOST_DAYS || days.iter().map(Day::len).sum::<usize>() > MOST_COUNTS {
            days.remove(0);
        }
    }
}

impl Day {
    async fn read(
        store: &dyn Store,
        from: Timestamp,
        to: Timestamp,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let counts = store.load_counts(from, to, MINUTE).await?;
        let pools = counts.into_iter().map(|counts| (counts.pool, counts.slots)).collect();
        Ok(Self { from, to, pools, stale_from: i64::MAX, read_whole_at: now, read_at: now })
    }

    fn is_younger(&self, than_ms: i64, now: Timestamp) -> bool {
        let age_ms = now.millis() - self.read_whole_at.millis();
        (0..than_ms).contains(&age_ms)
    }

    /// Reads again what may have changed.
    async fn catch_up(&mut self, store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
        let first = self.stale_from.min(self.read_at.millis() - LATE_MS).max(self.from.millis());
        // When that is nothing, there may still be pools that are new.
        let first = (first - first.rem_euclid(MINUTE_MS)).min(self.to.millis());
        let counts = store.load_counts(Timestamp::from_millis(first), self.to, MINUTE).await?;
        let offset = u32::try_from((first - self.from.millis()) / MINUTE_MS).unwrap_or(0);
        for PoolCounts { pool, slots } in counts {
            let kept = self.pools.entry(pool).or_default();
            kept.truncate(kept.partition_point(|count| count.slot < offset));
            kept.extend(slots.into_iter().map(|count| SlotCount { slot: count.slot + offset, ..count }));
        }
        self.stale_from = i64::MAX;
        self.read_at = now;
        Ok(())
    }

    /// In slots of `minutes`.
    fn add_up(&self, minutes: u32) -> Vec<PoolCounts> {
        let slots_of = |counts: &[SlotCount]| {
            let mut slots: Vec<SlotCount> = Vec::new();
            for count in counts {
                let slot = count.slot / minutes;
                match slots.last_mut().filter(|last| last.slot == slot) {
                    Some(last) => {
                        last.successes += count.successes;
                        last.failures += count.failures;
                    }
                    None => slots.push(SlotCount { slot, ..*count }),
                }
            }
            slots
        };
        let all = self.pools.iter();
        all.map(|(pool, counts)| PoolCounts { pool: pool.clone(), slots: slots_of(counts) }).collect()
    }

    fn len(&self) -> usize {
        self.pools.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    use smartproxy_store::{Batch, SqliteStore};

    use super::*;

    const DAY_MS: i64 = 1440 * MINUTE_MS;
    const START_MS: i64 = 20_000 * DAY_MS;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_millis(START_MS + minute * MINUTE_MS)
    }

    fn count(pool: &str, minute: i64) -> MinuteCount {
        MinuteCount { pool: pool.to_owned(), minute: at(minute), successes: 3, failures: 1 }
    }

    async fn store() -> (tempfile::TempDir, SqliteStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("test.db")).await.unwrap();
        (folder, store)
    }

    /// Writes, as ours or as somebody else's.
    async fn write(store: &SqliteStore, ours: Option<&DayCounts>, sequence: i64, minutes: Vec<MinuteCount>) {
        let batch = Batch { writer: 1, sequence, minutes, ..Batch::default() };
        ours.inspect(|counts| counts.are_written(&batch.minutes));
        store.write(&batch).await.unwrap();
        ours.inspect(|counts| counts.are_written(&batch.minutes));
    }

    fn sum(counts: &[PoolCounts]) -> u64 {
        counts.iter().flat_map(|pool| &pool.slots).map(|slot| slot.successes / 3).sum()
    }

    #[tokio::test]
    async fn counts_are_those_of_the_store_whatever_we_wrote_meanwhile() {
        let (_folder, store) = store().await;
        let counts = DayCounts::default();
        let seed = rand::rng().random();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut now = 100;
        for round in 1..200 {
            now += rng.random_range(0..8);
            let minutes = (0..rng.random_range(0..5)).map(|_| {
                let late = [0, 1, rng.random_range(0..2000)][rng.random_range(0..3)];
                count(["a", "b", "c"][rng.random_range(0..3)], (now - late).max(0))
            });
            let minutes: Vec<_> = minutes.collect();
            if !minutes.is_empty() {
                write(&store, Some(&counts), round, minutes).await;
            }
            let day = [(at(0), at(1440)), (at(-1440), at(0))][rng.random_range(0..2)];
            if rng.random_bool(0.3) {
                counts.read_ahead(&store, day, at(now)).await.unwrap();
            }
            let slot = MINUTE * [1, 2, 5, 10, 60][rng.random_range(0..5)];
            let wanted = store.load_counts(day.0, day.1, slot).await.unwrap();
            let got = counts.load(&store, day, slot, at(now)).await.unwrap();
            assert_eq!(got, wanted, "seed {seed}, round {round}");
            let wanted = store.load_minutes("b", day.0, day.1).await.unwrap();
            assert_eq!(counts.load_pool(&store, "b", day, at(now)).await.unwrap(), wanted);
        }
    }

    #[tokio::test]
    async fn what_others_write_now_is_seen_at_once_and_the_rest_after_a_while() {
        let (_folder, store) = store().await;
        let counts = DayCounts::default();
        let day = (at(0), at(1440));
        let seen = async |now| sum(&counts.load(&store, day, MINUTE, at(now)).await.unwrap());
        write(&store, None, 1, vec![count("a", 5), count("a", 600)]).await;
        assert_eq!(seen(600).await, 2);
        write(&store, None, 2, vec![count("a", 599), count("b", 600), count("b", 601)]).await;
        assert_eq!(seen(601).await, 5);
        write(&store, None, 3, vec![count("a", 5)]).await;
        assert_eq!(seen(602).await, 5, "nobody told us");
        assert_eq!(seen(612).await, 6);
        assert_eq!(seen(100).await, 6, "also when the clock is set back");
    }

    #[tokio::test]
    async fn what_was_read_ahead_is_not_read_again_until_it_grows_old() {
        let (_folder, store) = store().await;
        let counts = DayCounts::default();
        let day = (at(0), at(1440));
        counts.read_ahead(&store, day, at(600)).await.unwrap();
        write(&store, None, 1, vec![count("a", 5)]).await;
        let seen = async |now| sum(&counts.load(&store, day, MINUTE, at(now)).await.unwrap());
        assert_eq!(seen(601).await, 0, "it is there, and nobody told us");
        counts.read_ahead(&store, day, at(607)).await.unwrap();
        assert_eq!(seen(607).await, 0);
        counts.read_ahead(&store, day, at(608)).await.unwrap();
        assert_eq!(seen(608).await, 1);
    }

    #[tokio::test]
    async fn only_a_few_days_are_kept() {
        let (_folder, store) = store().await;
        let counts = DayCounts::default();
        for day in 0..10 {
            let day = (at(day * 1440), at((day + 1) * 1440));
            counts.load(&store, day, MINUTE, at(0)).await.unwrap();
        }
        assert_eq!(counts.days.lock().await.len(), MOST_DAYS);
        counts.forget().await;
        assert!(counts.days.lock().await.is_empty());
    }
}
