//! Small files in the MaxMind DB format, version 2.0 (<https://maxmind.github.io/MaxMind-DB/>).
//!
//! ```text
//! search tree     nodes of two records, 32 bits each, big-endian: below the number of nodes the next node, that number:
//!                 nothing known, above it a place in the data section, counted from 16 bytes before it
//! separator       16 zero bytes
//! data section    values: control byte (type in the upper three bits, size in the lower five), then bytes
//! metadata        "\xab\xcd\xefMaxMind.com", then one map
//! ```
//!
//! Addresses are IPv6; IPv4 stands under `::/96`.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

/// What stands in front of the metadata.
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";
/// Zero bytes between the tree and the data.
const SEPARATOR: usize = 16;
const UINT16: u8 = 5;
const UINT32: u8 = 6;
const UINT64: u8 = 9;
/// Text of all sizes that we write fits into one length byte: 29 to 284 bytes.
const LONGEST_TEXT: usize = 284;

/// A record of a node.
#[derive(Clone, Copy)]
enum To {
    Nothing,
    Node(usize),
    Value(usize),
}

/// A file of type `kind`, with a value for each network: `("198.51.100.0/24", json!({...}))`. Later ones replace earlier
/// ones inside them. Values are objects, texts, arrays and numbers up to 32 bits.
///
/// # Panics
/// When a network cannot be read, lies around an earlier one, or a value has no form in the file: this is for tests.
pub fn mmdb(kind: &str, networks: &[(&str, Value)]) -> Vec<u8> {
    let mut nodes = vec![[To::Nothing; 2]];
    let mut data = Vec::new();
    for (network, value) in networks {
        let at = data.len();
        write(&mut data, value);
        let (address, length) = network.split_once('/').expect("a network is address/length");
        let length: u8 = length.parse().expect("a length is a number");
        let (bits, length) = match address.parse().expect("a network begins with an address") {
            IpAddr::V4(ip) => (u128::from(u32::from(ip)), 96 + length),
            IpAddr::V6(ip) => (u128::from(ip), length),
        };
        let mut node = 0;
        for depth in 0..length {
            let bit = (bits >> (127 - depth) & 1) as usize;
            if depth + 1 == length {
                nodes[node][bit] = To::Value(at);
                break;
            }
            node = match nodes[node][bit] {
                To::Node(next) => next,
                inherited => {
                    // What held for the whole holds for both halves.
                    nodes.push([inherited; 2]);
                    let next = nodes.len() - 1;
                    nodes[node][bit] = To::Node(next);
                    next
                }
            };
        }
    }
    let count = nodes.len();
    let mut file = Vec::new();
    for record in nodes.iter().flatten() {
        let number = match record {
            To::Nothing => count,
            To::Node(node) => *node,
            To::Value(at) => count + SEPARATOR + at,
        };
        file.extend(u32::try_from(number).expect("small files").to_be_bytes());
    }
    file.extend([0; SEPARATOR]);
    file.extend(data);
    file.extend(MARKER);
    let metadata = json!({
        "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1_795_000_000_u32,
        "database_type": kind, "description": { "en": "made by a test" }, "ip_version": 6, "languages": ["en"],
        "node_count": count, "record_size": 32,
    });
    write(&mut file, &metadata);
    file
}

/// A file that says in which country networks are: `("198.51.100.0/24", "DE")`.
///
/// # Panics
/// As [`mmdb`].
pub fn countries(networks: &[(&str, &str)]) -> Vec<u8> {
    let value = |code: &str| json!({ "country": { "iso_code": code, "names": { "en": "Somewhere" } } });
    let networks: Vec<_> = networks.iter().map(|(network, code)| (*network, value(code))).collect();
    mmdb("Test-Country", &networks)
}

/// A file that says whose networks are: `("198.51.100.0/24", 64_500, "Example Net")`.
///
/// # Panics
/// As [`mmdb`].
pub fn organisations(networks: &[(&str, u32, &str)]) -> Vec<u8> {
    let value = |number: u32, name: &str| {
        json!({
            "autonomous_system_number": number, "autonomous_system_organization": name,
        })
    };
    let networks: Vec<_> =
        networks.iter().map(|(network, number, name)| (*network, value(*number, name))).collect();
    mmdb("Test-ASN", &networks)
}

fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::String(text) => write_text(out, text),
        Value::Number(number) => {
            let number = number.as_u64().and_then(|n| n.try_into().ok());
            write_number(out, UINT32, number.expect("numbers have up to 32 bits"));
        }
        Value::Object(map) => write_map(out, map),
        Value::Array(items) => {
            control(out, 11, items.len());
            for item in items {
                write(out, item);
            }
        }
        Value::Null | Value::Bool(_) => unreachable!("tests write objects, texts, arrays and numbers"),
    }
}

fn write_map(out: &mut Vec<u8>, map: &Map<String, Value>) {
    control(out, 7, map.len());
    for (key, value) in map {
        write_text(out, key);
        match (key.as_str(), value.as_u64()) {
            // Of the metadata, which have types of their own.
            ("build_epoch", Some(n)) => write_number(out, UINT64, n as u32),
            (
                "binary_format_major_version" | "binary_format_minor_version" | "ip_version" | "record_size",
                Some(n),
            ) => write_number(out, UINT16, n as u32),
            _ => write(out, value),
        }
    }
}

/// Without the zero bytes in front.
fn write_number(out: &mut Vec<u8>, kind: u8, number: u32) {
    let bytes = &number.to_be_bytes()[(number.leading_zeros() / 8) as usize..];
    control(out, kind, bytes.len());
    out.extend(bytes);
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() <= LONGEST_TEXT, "{} bytes of text are too many", text.len());
    control(out, 2, text.len());
    out.extend(text.as_bytes());
}

/// The control byte; types above 7 have a second byte, sizes above 28 a further one.
fn control(out: &mut Vec<u8>, kind: u8, size: usize) {
    let (short, long) = if size < 29 { (size as u8, None) } else { (29, Some((size - 29) as u8)) };
    if kind <= 7 {
        out.push(kind << 5 | short);
    } else {
        out.extend([short, kind - 7]);
    }
    out.extend(long);
}
