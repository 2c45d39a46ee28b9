//! Which of those that passed are wanted.

use std::time::Duration;

use smartproxy_core::{Anonymity, Label};

use super::args::{CheckArgs, Country};
use super::record::Record;

/// Conditions on those that passed.
pub(super) struct Filter {
    https: bool,
    anonymity: Vec<Anonymity>,
    countries: Vec<Country>,
    max_latency: Option<Duration>,
    tampering: bool,
    /// Kinds of tampering that are allowed anyway.
    allowed: Vec<Label>,
    /// Whether those that failed are results too.
    failed: bool,
}

impl Filter {
    pub(super) fn new(args: &CheckArgs, allowed: &[Label]) -> Self {
        Self {
            https: args.https,
            anonymity: args.anonymity.clone(),
            countries: args.country.clone(),
            max_latency: args.max_latency,
            tampering: args.tampering,
            allowed: allowed.to_vec(),
            failed: args.all,
        }
    }

    /// Whether `record` is a result. What is not known of a proxy is no match, and no reason to leave it out.
    pub(super) fn takes(&self, record: &Record) -> bool {
        if !record.alive {
            return self.failed;
        }
        let is_fast =
            |limit: Duration| record.latency_ms.is_some_and(|ms| ms <= limit.as_secs_f64() * 1000.0);
        (!self.https || record.https == Some(true))
            && (self.anonymity.is_empty()
                || record.anonymity.is_some_and(|level| self.anonymity.contains(&level)))
            && self.is_in_country(record.country.as_deref())
            && self.max_latency.is_none_or(is_fast)
            && (self.tampering || !record.tampers(&self.allowed))
    }

    /// Whether failed ones are results.
    pub(super) const fn takes_failed(&self) -> bool {
        self.failed
    }

    fn is_in_country(&self, known: Option<&str>) -> bool {
        let named = |is_wanted| {
            self.countries
                .iter()
                .any(|country| country.is_wanted == is_wanted && known == Some(&*country.code))
        };
        let any_wanted = self.countries.iter().any(|country| country.is_wanted);
        (!any_wanted || named(true)) && !named(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> Filter {
        Filter {
            https: false,
            anonymity: Vec::new(),
            countries: Vec::new(),
            max_latency: None,
            tampering: false,
            allowed: Vec::new(),
            failed: false,
        }
    }

    fn record(json: &str) -> Record {
        let text = format!(r#"{{"url":"http://192.0.2.1:80","alive":true,"probed_at_ms":0{json}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn every_condition_must_hold_and_the_unknown_is_no_match() {
        let https = Filter { https: true, ..filter() };
        assert!(https.takes(&record(r#","https":true"#)));
        assert!(!https.takes(&record("")) && !https.takes(&record(r#","https":false"#)));
        let fast = Filter { max_latency: Some(Duration::from_secs(2)), ..filter() };
        assert!(fast.takes(&record(r#","latency_ms":2000.0"#)));
        assert!(!fast.takes(&record("")) && !fast.takes(&record(r#","latency_ms":2000.1"#)));
        let hidden = Filter { anonymity: vec![Anonymity::Elite, Anonymity::Anonymous], ..filter() };
        assert!(hidden.takes(&record(r#","anonymity":"anonymous""#)));
        assert!(!hidden.takes(&record("")) && !hidden.takes(&record(r#","anonymity":"transparent""#)));
    }

    #[test]
    fn countries_are_wanted_or_not() {
        let country = |code: &str, is_wanted| Country { code: code.to_owned(), is_wanted };
        let (de, us) = (record(r#","country":"DE""#), record(r#","country":"US""#));
        let wanted = Filter { countries: vec![country("DE", true)], ..filter() };
        assert!(wanted.takes(&de) && !wanted.takes(&us) && !wanted.takes(&record("")));
        let unwanted = Filter { countries: vec![country("DE", false)], ..filter() };
        assert!(!unwanted.takes(&de) && unwanted.takes(&us) && unwanted.takes(&record("")));
    }

    #[test]
    fn tampering_is_left_out_unless_wanted_and_a_leak_of_the_address_is_none() {
        let injects = record(r#","labels":["leaks_address","injects"]"#);
        assert!(!filter().takes(&injects));
        assert!(Filter { tampering: true, ..filter() }.takes(&injects));
        assert!(filter().takes(&record(r#","labels":["leaks_address"]"#)));
        let allowed = Filter { allowed: vec![Label::Injects], ..filter() };
        assert!(allowed.takes(&injects));
        assert!(!allowed.takes(&record(r#","labels":["injects","breaks_tls"]"#)));
    }

    #[test]
    fn those_that_failed_are_results_only_when_all_are_wanted() {
        let failed = Record { alive: false, ..record("") };
        assert!(!filter().takes(&failed));
        assert!(Filter { failed: true, https: true, ..filter() }.takes(&failed));
    }
}
