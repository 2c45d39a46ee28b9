//! Lists of many: what the server does for them.

use std::time::{Duration, Instant};

use smartproxy_store::Store;

use crate::PostgresDatabase;
use crate::conformance::new_proxies;

#[tokio::test]
async fn a_long_list_of_new_proxies_is_looked_up_by_index_although_the_table_was_empty() {
    let database = PostgresDatabase::new();
    let store = database.store().await;
    // Nothing tells the planner that the table has grown: its own look comes after the transaction.
    store.insert_proxies(&new_proxies(30_000)).await.unwrap();
    store.close().await;
    let of_proxies = |column: &str| -> u64 {
        let text = database
            .execute(&format!("SELECT {column} FROM pg_stat_user_tables WHERE relid = 'proxies'::regclass"));
        text.parse().unwrap()
    };
    // The server counts a moment later.
    let deadline = Instant::now() + Duration::from_secs(20);
    while of_proxies("idx_scan") < 30_000 {
        assert!(Instant::now() < deadline, "{} of 30,000 were looked up by index", of_proxies("idx_scan"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(of_proxies("seq_tup_read"), 0, "rows of the growing table that were read for nothing");
}
