//! The promise of [`Store`], sentence by sentence, for every backend.
//!
//! A test is a function over a [`Database`]; [`conformance!`] lists them all once and makes a `#[tokio::test]` of each
//! for one backend. A function that is missing from the list is dead code, and the compiler says so.

pub(crate) mod batches;
pub(crate) mod feeds;
pub(crate) mod model;
pub(crate) mod proxies;
pub(crate) mod prune;
pub(crate) mod statistics;

use async_trait::async_trait;
use smartproxy_core::saved::{ProxyId, SavedProxy};
use smartproxy_core::{ProxyAddr, Timestamp};
use smartproxy_store::{Batch, NewProxy, Store};

/// An empty database that can be opened again and again, one store at a time.
#[async_trait]
pub(crate) trait Database: Send + Sync {
    async fn open(&self) -> Box<dyn Store>;
}

/// `conformance!(name, database)`: every test on a new `database` of its own, in a module `name`; paths in it start with `crate`.
macro_rules! conformance {
    ($backend:ident, $database:expr) => {
        mod $backend {
            $crate::conformance::conformance!(@tests $database;
                proxies: a_new_proxy_is_loaded_as_it_was_inserted;
                proxies: ids_come_in_the_order_of_the_call_and_are_greater_than_zero;
                proxies: a_known_proxy_keeps_its_id_feed_and_age;
                proxies: a_changed_password_is_saved_under_the_same_id;
                proxies: the_user_is_part_of_the_identity;
                proxies: of_a_proxy_named_twice_the_first_gives_feed_and_age_and_the_last_the_password;
                proxies: pages_are_in_ascending_order_of_id_and_short_only_at_the_end;
                proxies: all_are_counted;
                proxies: inserting_nothing_gives_nothing;
                proxies: more_proxies_than_fit_one_statement_are_inserted_whole;
                proxies: every_kind_of_host_and_login_reads_back;
                proxies: inserts_at_the_same_time_agree_on_the_ids;
                batches: states_replace_what_was_saved;
                batches: of_two_states_of_one_proxy_the_last_counts;
                batches: unknown_proxies_are_ignored;
                batches: evidence_replaces_what_was_saved;
                batches: evidence_is_loaded_by_pool_in_ascending_order_of_proxy;
                batches: pools_replace_what_was_saved_and_are_loaded_by_name;
                batches: the_same_batch_again_changes_nothing;
                batches: another_writer_may_use_the_same_sequence;
                batches: an_empty_batch_is_written;
                batches: numbers_at_the_edge_of_their_type_do_not_stop_a_batch;
                batches: fractions_keep_fifteen_digits;
                batches: more_rows_than_fit_one_statement_are_written_whole;
                batches: writes_at_the_same_time_all_count;
                statistics: minutes_add_up;
                statistics: minutes_are_loaded_from_inclusive_to_exclusive_in_ascending_order;
                statistics: counts_of_all_pools_are_added_up_to_slots;
                statistics: a_minute_without_counts_is_not_kept;
                statistics: pools_with_minutes_are_sorted;
                statistics: totals_are_of_all_pools_and_times;
                prune: old_minutes_are_added_up_to_slots_and_every_sum_stays;
                prune: a_minute_that_comes_late_joins_its_slot;
                prune: deleted_minutes_stay_in_the_totals;
                prune: more_minutes_than_fit_one_portion_are_tidied_one_portion_at_a_time;
                prune: the_dead_are_removed_with_their_evidence_and_nobody_else;
                prune: more_dead_than_fit_one_portion_are_removed_one_portion_at_a_time;
                prune: a_removed_proxy_comes_back_as_a_new_one;
                prune: old_writers_are_forgotten;
                feeds: a_feed_reads_back_as_it_was_saved;
                feeds: saving_a_feed_again_replaces_all_of_it;
                feeds: feeds_are_loaded_by_name;
                feeds: everything_outlives_a_restart;
                feeds: an_open_store_answers_and_names_its_place;
                feeds: a_closed_store_says_so_and_does_not_hang;
                model: random_calls_leave_what_the_model_says;
            );
        }
    };
    (@tests $database:expr; $($file:ident: $test:ident;)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                let database = $database;
                $crate::conformance::$file::$test(&database).await;
            }
        )*
    };
}
pub(crate) use conformance;

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// `url` as a feed named it.
pub(crate) fn new_proxy(url: &str) -> NewProxy {
    NewProxy { addr: ProxyAddr::parse(url).unwrap(), feed: "alpha".into(), seen_at: NOW }
}

/// `count` proxies without login.
pub(crate) fn new_proxies(count: u32) -> Vec<NewProxy> {
    let url = |n: u32| format!("http://10.{}.{}.{}:8080", n >> 16, (n >> 8) & 255, n & 255);
    (0..count).map(|n| new_proxy(&url(n))).collect()
}

pub(crate) async fn load_all(store: &dyn Store) -> Vec<SavedProxy> {
    store.load_proxies(ProxyId(0), u32::MAX).await.unwrap()
}

/// An empty batch of writer 1.
pub(crate) fn batch(sequence: i64) -> Batch {
    Batch { writer: 1, sequence, ..Batch::default() }
}
