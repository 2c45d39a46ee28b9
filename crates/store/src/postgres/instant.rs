//! Times as TIMESTAMPTZ, which is what the tables of the Python service hold.
//!
//! On the wire it is a count of microseconds since 2000-01-01 UTC, in 64 bits; the two ends are -infinity and infinity.

use smartproxy_core::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};

/// 2000-01-01 in Unix milliseconds.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;

/// First and last time that PostgreSQL can hold, in its microseconds: 4714-11-24 BC and 294276-12-31. What is beyond
/// becomes infinite, which reads back as the first and last of ours.
const FIRST_US: i64 = -211_813_488_000_000_000;
const END_US: i64 = 9_223_371_331_200_000_000;

/// Numbers of TIMESTAMPTZ and its array in PostgreSQL's catalogue, the same on every server.
const TYPE: Oid = Oid(1184);
const ARRAY_TYPE: Oid = Oid(1185);

/// A [`Timestamp`] to bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instant(pub(super) Timestamp);

/// The microseconds that stand for `at`.
pub(super) fn to_micros(at: Timestamp) -> i64 {
    let micros = (i128::from(at.millis()) - i128::from(POSTGRES_EPOCH_MS)) * 1000;
    match i64::try_from(micros) {
        Ok(micros) if (FIRST_US..END_US).contains(&micros) => micros,
        _ if at.millis() < 0 => i64::MIN,
        _ => i64::MAX,
    }
}

/// The time that `micros` stands for, rounded down to milliseconds.
pub(super) fn from_micros(micros: i64) -> Timestamp {
    Timestamp::from_millis(match micros {
        i64::MIN => i64::MIN,
        i64::MAX => i64::MAX,
        _ => micros.div_euclid(1000) + POSTGRES_EPOCH_MS,
    })
}

impl Type<Postgres> for Instant {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TYPE)
    }
}

impl PgHasArrayType for Instant {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(ARRAY_TYPE)
    }
}

impl Encode<'_, Postgres> for Instant {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&to_micros(self.0).to_be_bytes());
        Ok(IsNull::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_to_the_millisecond_and_the_ends_stay_the_ends() {
        for ms in [i64::MIN, -62_135_596_800_000, -1, 0, 1, 946_684_800_000, 1_790_000_000_001, i64::MAX] {
            let at = Timestamp::from_millis(ms);
            assert_eq!(from_micros(to_micros(at)), at);
        }
        assert_eq!(to_micros(Timestamp::from_millis(i64::MIN + 1)), i64::MIN);
        assert_eq!(to_micros(Timestamp::from_millis(i64::MAX - 1)), i64::MAX);
        assert_eq!(from_micros(-1), Timestamp::from_millis(946_684_799_999));
    }
}
