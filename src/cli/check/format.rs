//! Results as text, JSON lines or CSV.

use std::fmt::Write as _;

use super::args::Format;
use super::record::Record;

/// Stands in front of everything.
pub(super) fn header(format: Format) -> &'static str {
    match format {
        Format::Text | Format::Jsonl => "",
        Format::Csv => {
            "url,alive,reason,code,latency_ms,anonymity,https,country,exit,abilities,labels,probed_at_ms\n"
        }
    }
}

/// Appends `record` as a line.
pub(super) fn write(format: Format, record: &Record, out: &mut String) {
    match format {
        // A comment, so that the file stays a list of those that passed.
        Format::Text if !record.alive => {
            let _ = write!(out, "# {} {}", record.url, record.failure());
        }
        Format::Text => out.push_str(&record.url),
        Format::Jsonl => out.push_str(&json(record)),
        Format::Csv => write_csv(record, out),
    }
    out.push('\n');
}

pub(super) fn json(record: &Record) -> String {
    serde_json::to_string(record).expect("texts and finite numbers can be written as JSON")
}

fn write_csv(record: &Record, out: &mut String) {
    let number = |number: Option<f64>| number.map(|number| number.to_string()).unwrap_or_default();
    let fields = [
        record.url.clone(),
        record.alive.to_string(),
        record.reason.as_deref().unwrap_or_default().to_owned(),
        number(record.code.map(f64::from)),
        number(record.latency_ms),
        record.anonymity.map(|level| level.as_str().to_owned()).unwrap_or_default(),
        record.https.map(|https| https.to_string()).unwrap_or_default(),
        record.country.clone().unwrap_or_default(),
        record.exit.map(|exit| exit.to_string()).unwrap_or_default(),
        record.abilities.join(" "),
        record.labels.join(" "),
        record.probed_at_ms.to_string(),
    ];
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        // No field has a line end; a login has its special characters percent-encoded, but for none that needs quotes.
        if field.contains([',', '"']) {
            let _ = write!(out, "\"{}\"", field.replace('"', "\"\""));
        } else {
            out.push_str(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use smartproxy_core::{Ability, Anonymity, ProbeFailure, ProbeReport, ProxyAddr, Timestamp, Verdict};

    use super::*;

    fn records() -> [Record; 2] {
        let proxy = |url| ProxyAddr::parse(url).unwrap();
        let mut passed = ProbeReport::new(Timestamp::from_millis(7), Verdict::Passed);
        passed.latency = Some(std::time::Duration::from_micros(12_345));
        passed.anonymity = Some(Anonymity::Elite);
        passed.abilities.note(Ability::Tls, true);
        passed.abilities.note(Ability::Forward, true);
        passed.exit = Some("192.0.2.1".parse().unwrap());
        let failed = ProbeReport::new(Timestamp::from_millis(8), Verdict::Failed(ProbeFailure::Status(503)));
        [
            Record::new(&proxy("socks5://a,b:p%22w@192.0.2.7:1080"), &passed, Some("DE".to_owned())),
            Record::new(&proxy("http://[2001:db8::1]:80"), &failed, None),
        ]
    }

    #[test]
    fn each_format_has_all_that_it_can_say() {
        let lines = |format| {
            let mut out = String::new();
            for record in &records() {
                write(format, record, &mut out);
            }
            out
        };
        assert_eq!(
            lines(Format::Text),
            "socks5://a%2Cb:p%22w@192.0.2.7:1080\n# http://[2001:db8::1]:80 status 503\n"
        );
        assert_eq!(
            lines(Format::Csv),
            "socks5://a%2Cb:p%22w@192.0.2.7:1080,true,,,12.345,elite,true,DE,192.0.2.1,forward tls,,7\n\
             http://[2001:db8::1]:80,false,status,503,,,,,,,,8\n"
        );
        let columns = header(Format::Csv).split(',').count();
        assert!(lines(Format::Csv).lines().all(|line| line.split(',').count() == columns));
        let read: Vec<Record> =
            lines(Format::Jsonl).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, records());
    }
}
