//! `/api/sources` and `/api/stats/...`.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::ini::Ini;
use crate::service::{Home, Service, until};

/// The date in UTC, which tests set as the time zone.
pub(crate) fn today() -> String {
    today_in("UTC")
}

fn today_in(zone: &str) -> String {
    Timestamp::now().to_zoned(TimeZone::get(zone).unwrap()).date().to_string()
}

async fn daily(service: &Service, source: &str, date: &str) -> Value {
    service.get(&format!("/api/stats/daily?source={source}&date={date}")).await.json()
}

/// Two successes and a failure in the pool `shop`, none in others.
async fn with_reports(ini: Ini) -> (Home, Service) {
    let home = Home::new(&ini.with("sources", "predefined_sources", "shop, archive"));
    let service = home.start().await;
    for status in [200, 0, 200] {
        service.report("shop", "http://127.0.0.1:9", status).await;
    }
    (home, service)
}

#[tokio::test]
async fn sources_are_all_configured_pools_and_all_with_statistics_sorted() {
    let (home, service) = with_reports(Ini::quick()).await;
    assert_eq!(service.get("/api/sources").await.text, r#"["archive","default","shop"]"#);
    assert_eq!(service.stop().await, 0);
    home.write("config.ini", Ini::quick().with("sources", "predefined_sources", "other").text());
    let service = home.start().await;
    assert_eq!(service.get("/api/sources").await.json(), json!(["default", "other", "shop"]));
}

#[tokio::test]
async fn the_current_minute_is_in_the_statistics_of_the_day_within_seconds() {
    let (_home, service) = with_reports(Ini::quick()).await;
    let wanted = json!({ "total_requests": 3, "total_success": 2, "success_rate": 66.67 });
    until("today has 3 requests", async || daily(&service, "shop", &today()).await == wanted).await;
    let none = json!({ "total_requests": 0, "total_success": 0, "success_rate": 0.0 });
    assert_eq!(daily(&service, "shop", "2020-02-29").await, none);
    assert_eq!(daily(&service, "archive", &today()).await, none);
    assert_eq!(daily(&service, "unheard-of", &today()).await, none);
}

#[tokio::test]
async fn a_timeseries_has_the_slots_with_data_and_with_fill_all_of_the_day() {
    let (_home, service) = with_reports(Ini::quick()).await;
    let today = today();
    let series = async |query: &str| {
        service.get(&format!("/api/stats/timeseries?source=shop&date={today}{query}")).await.json()
    };
    until("today has 3 requests", async || daily(&service, "shop", &today).await["total_requests"] == 3)
        .await;
    for (interval, slots) in [(2, 720), (5, 288), (10, 144), (30, 48), (60, 24)] {
        let sparse = series(&format!("&interval={interval}")).await;
        let sparse = sparse.as_array().unwrap();
        let sum = |key: &str| sparse.iter().map(|slot| slot[key].as_u64().unwrap()).sum::<u64>();
        // Two slots when the minute turned between the reports.
        assert!((1..=2).contains(&sparse.len()), "{sparse:?}");
        assert_eq!((sum("total_requests"), sum("success_count")), (3, 2));
        let minute = sparse[0]["time"].as_str().unwrap().split_once(':').unwrap().1.parse::<u32>().unwrap();
        assert_eq!(minute % interval.min(60), 0);
        let full = series(&format!("&interval={interval}&fill=1")).await;
        let full = full.as_array().unwrap();
        assert_eq!((full.len(), &full[0]["time"]), (slots, &json!("00:00")));
        for slot in full {
            let none =
                json!({ "time": slot["time"], "success_rate": 0.0, "total_requests": 0, "success_count": 0 });
            let wanted = sparse.iter().find(|seen| seen["time"] == slot["time"]).unwrap_or(&none);
            assert_eq!(slot, wanted);
        }
    }
    let default = series("").await;
    assert_eq!(default, series("&interval=10").await);
    assert_eq!(default, series("&interval=").await);
}

#[tokio::test]
async fn the_overview_has_every_pool_with_its_day_and_every_slot() {
    let (_home, service) = with_reports(Ini::quick()).await;
    let path = format!("/api/stats/overview?date={}&interval=60", today());
    until("today has 3 requests", async || daily(&service, "shop", &today()).await["total_requests"] == 3)
        .await;
    let json = service.get(&path).await.json();
    let rows = json["sources"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["source"].as_str().unwrap()).collect();
    assert_eq!(names, ["archive", "default", "shop"]);
    assert_eq!(rows[2]["daily"], json!({ "total_requests": 3, "total_success": 2, "success_rate": 66.67 }));
    for row in rows {
        assert_eq!(row["timeseries"].as_array().unwrap().len(), 24);
    }
    // Without a date: today.
    assert_eq!(service.get("/api/stats/overview?interval=60").await.json(), json);
}

#[tokio::test]
async fn the_day_is_the_one_of_the_configured_time_zone() {
    // The two ends of the earth: 25 hours apart, so never the same date.
    for (zone, other) in [("Pacific/Kiritimati", "Pacific/Niue"), ("Pacific/Niue", "Pacific/Kiritimati")] {
        let (_home, service) = with_reports(Ini::quick().with("server", "timezone", zone)).await;
        until("today has 3 requests", async || {
            daily(&service, "shop", &today_in(zone)).await["total_requests"] == 3
        })
        .await;
        assert_eq!(daily(&service, "shop", &today_in(other)).await["total_requests"], 0);
    }
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_refused() {
    let service = Home::new(&Ini::quick()).start().await;
    let missing = "'source' and 'date' query parameters are required.";
    let bad_date = "Invalid date format. Use YYYY-MM-DD.";
    let bad_interval = "'interval' must be one of [2, 5, 10, 30, 60].";
    for (path, error) in [
        ("/api/stats/daily", missing),
        ("/api/stats/daily?source=a", missing),
        ("/api/stats/daily?date=2026-01-01", missing),
        ("/api/stats/daily?source=&date=2026-01-01", missing),
        ("/api/stats/timeseries?source=a", missing),
        ("/api/stats/daily?source=a&date=yesterday", bad_date),
        ("/api/stats/daily?source=a&date=2026-02-30", bad_date),
        ("/api/stats/daily?source=a&date=20260101", bad_date),
        ("/api/stats/daily?source=a&date=2026-1-1", bad_date),
        ("/api/stats/daily?source=a&date=2026-01-01T00:00:00", bad_date),
        ("/api/stats/timeseries?source=a&date=01-01-2026", bad_date),
        ("/api/stats/overview?date=x", bad_date),
        ("/api/stats/timeseries?source=a&date=2026-01-01&interval=7", bad_interval),
        ("/api/stats/timeseries?source=a&date=2026-01-01&interval=0", bad_interval),
        ("/api/stats/timeseries?source=a&date=2026-01-01&interval=ten", bad_interval),
        ("/api/stats/overview?date=2026-01-01&interval=-5", bad_interval),
    ] {
        let reply = service.get(path).await;
        assert_eq!((reply.status, reply.error().as_str()), (400, error), "{path}");
    }
    for date in ["0000-01-01", "9999-12-31", "0001-01-01"] {
        let status = service.get(&format!("/api/stats/daily?source=a&date={date}")).await.status;
        assert!(matches!(status, 200 | 400), "{date}: {status}");
    }
}
