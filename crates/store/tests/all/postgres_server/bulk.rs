//! Lists of many: what the server does for them.

use std::time::{Duration, Instant};

use smartproxy_store::Store;

use crate::PostgresDatabase;
use crate::conformance::{load_all, new_proxies};

const ROWS: &str = "SELECT id, xmin, xmax FROM proxies ORDER BY id";

#[tokio::test]
async fn a_long_list_is_looked_up_by_index_when_known_and_hardly_when_new() {
    let database = PostgresDatabase::new();
    let of_proxies = |column: &str| -> u64 {
        let text = database
            .execute(&format!("SELECT {column} FROM pg_stat_user_tables WHERE relid = 'proxies'::regclass"));
        text.parse().unwrap()
    };
    // The server counts a moment later.
    let wait_for = async |column: &str, least: u64| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while of_proxies(column) < least {
            assert!(Instant::now() < deadline, "{column} is {} of {least}", of_proxies(column));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Nothing tells the planner that the table has grown: its own look comes after the transaction.
    let store = database.store().await;
    let ids = store.insert_proxies(&new_proxies(30_000)).await.unwrap();
    store.close().await;
    wait_for("n_tup_ins", 30_000).await;
    assert!(of_proxies("idx_scan") < 1_000, "{} look-ups of what is new", of_proxies("idx_scan"));
    assert_eq!(of_proxies("n_dead_tup"), 0);

    let before = database.execute(ROWS);
    let store = database.store().await;
    assert_eq!(store.insert_proxies(&new_proxies(30_000)).await.unwrap(), ids);
    store.close().await;
    wait_for("idx_scan", 30_000).await;
    assert!(of_proxies("seq_tup_read") <= 30_000, "more rows were read than by us, just before");
    assert_eq!(database.execute(ROWS), before, "a known proxy writes nothing");
}

#[tokio::test]
async fn a_known_one_among_many_new_keeps_its_row() {
    let database = PostgresDatabase::new();
    let store = database.store().await;
    let list = new_proxies(9_000);
    // Every 101st: most of them are not among those that are looked at first.
    let known: Vec<_> = list.iter().step_by(101).cloned().collect();
    let known_ids = store.insert_proxies(&known).await.unwrap();
    let before = database.execute(ROWS);
    for known in 1..known.len() {
        let list = [&list[..100], &list[known * 101..]].concat();
        let ids = store.insert_proxies(&list).await.unwrap();
        let all = load_all(&store).await;
        assert!(list.iter().zip(&ids).all(|(new, id)| {
            let at = all.binary_search_by_key(id, |saved| saved.id).unwrap();
            all[at].addr == new.addr
        }));
        let after = database.execute(ROWS);
        assert!(before.lines().all(|row| after.lines().any(|other| other == row)));
        if known == 3 {
            break;
        }
        database.execute(&format!("DELETE FROM proxies WHERE id > {}", known_ids.iter().max().unwrap().0));
    }
}

#[tokio::test]
async fn ids_of_another_width_or_without_a_sequence_of_their_own_are_as_good() {
    for change in [
        "ALTER TABLE proxies ALTER COLUMN id TYPE BIGINT; ALTER SEQUENCE proxies_id_seq AS BIGINT RESTART 5000000000",
        "ALTER SEQUENCE proxies_id_seq OWNED BY NONE",
        "ALTER TABLE proxies ALTER COLUMN port TYPE BIGINT",
        "ALTER TABLE proxies ALTER COLUMN id DROP DEFAULT; DROP SEQUENCE proxies_id_seq;
         ALTER TABLE proxies ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY",
    ] {
        let database = PostgresDatabase::new();
        database.store().await.close().await;
        database.execute(change);
        let store = database.store().await;
        let list = new_proxies(2_000);
        let ids = store.insert_proxies(&list).await.unwrap();
        assert_eq!(store.insert_proxies(&list).await.unwrap(), ids, "{change}");
        let all = load_all(&store).await;
        assert_eq!(all.len(), 2_000, "{change}");
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        assert!(all.iter().map(|saved| saved.id).eq(sorted), "{change}");
    }
}
