//! One column of one row.
//!
//! Types are not checked again: the tables are STRICT, so a column holds what it says, or NULL where it may. Reading
//! the other kind gives the zero of the type.

use smartproxy_core::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

/// `None` when it is NULL, or bytes that are no UTF-8.
pub(super) fn optional_text(row: &SqliteRow, column: usize) -> Option<&str> {
    row.try_get_unchecked::<Option<&str>, _>(column).ok().flatten()
}

pub(super) fn text(row: &SqliteRow, column: usize) -> &str {
    optional_text(row, column).unwrap_or_default()
}

pub(super) fn optional_integer(row: &SqliteRow, column: usize) -> Option<i64> {
    row.try_get_unchecked::<Option<i64>, _>(column).ok().flatten()
}

pub(super) fn integer(row: &SqliteRow, column: usize) -> i64 {
    optional_integer(row, column).unwrap_or_default()
}

/// The count in a column; 0 when somebody wrote a negative one.
pub(super) fn count(column: i64) -> u64 {
    u64::try_from(column).unwrap_or_default()
}

/// The count in a column that we wrote from 32 bits, brought into their range.
pub(super) fn small_count(column: i64) -> u32 {
    u32::try_from(column.max(0)).unwrap_or(u32::MAX)
}

pub(super) fn optional_number(row: &SqliteRow, column: usize) -> Option<f64> {
    row.try_get_unchecked::<Option<f64>, _>(column).ok().flatten()
}

pub(super) fn number(row: &SqliteRow, column: usize) -> f64 {
    optional_number(row, column).unwrap_or_default()
}

pub(super) fn optional_instant(row: &SqliteRow, column: usize) -> Option<Timestamp> {
    optional_integer(row, column).map(Timestamp::from_millis)
}

pub(super) fn instant(row: &SqliteRow, column: usize) -> Timestamp {
    Timestamp::from_millis(integer(row, column))
}
