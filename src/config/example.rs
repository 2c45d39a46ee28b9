//! `config.ini.example`, written from the table of keys, so that it cannot lie.

use std::fmt::Write as _;

use super::checks;
use super::defaults::PUBLIC_FEEDS;
use super::keys::KeySpec;
use super::sections::{SectionSpec, table};
use super::show::in_file;
use super::typed::FEED_SECTION_PREFIX;

/// Longest line of a comment, in characters.
const WIDTH: usize = 100;

const HEAD: &str = "\
# SmartProxy: every setting with its default.
#
# To use it: copy it to config.ini and change what you want. A setting is on when its line does not begin with a
# semicolon. What you leave alone keeps its default, which a later version may improve, so delete what you do not need.
#
# The file is read as Python's configparser does: \"key = value\" or \"key: value\", # and ; begin a comment on a line of
# their own, further lines of a value are indented, %(key)s is the value of another key of the section or of [DEFAULT],
# %% is a percent sign, and so is a % alone. Whatever stands in a section may be set in the environment as well, which
# wins: SMARTPROXY_SERVER__PORT=7000 sets port in [server].
#
# \"smartproxy config check\" says what is wrong with the file, \"smartproxy config show\" what is in effect and why.
";

const FEEDS_HEAD: &str = "\
# These public lists are what is fetched when there is no config.ini at all. Delete those you do not want.
";

/// The text of `config.ini.example`: every key with its unit and its default. Settings are commented out with `;`,
/// but for the public feeds, which are there because a file with none would fetch nothing.
pub fn example() -> String {
    let mut text = HEAD.to_owned();
    for spec in table() {
        let is_feed = spec.name.ends_with('_');
        text.push('\n');
        write_comment(&mut text, &spec.doc.concat(), "");
        let _ = writeln!(text, "{}[{}]", if is_feed { ";" } else { "" }, spec.display_name());
        for key in spec.keys.iter().filter(|key| key.has_effect) {
            text.push('\n');
            write_key(&mut text, key);
        }
        write_keys_without_effect(&mut text, &spec);
    }
    let _ = write!(text, "\n{FEEDS_HEAD}");
    for feed in PUBLIC_FEEDS {
        let _ = write!(text, "\n[{FEED_SECTION_PREFIX}{}]\nurl = {}\n", feed.name, feed.url);
        if let Some(protocol) = feed.default_protocol {
            let _ = writeln!(text, "default_protocol = {protocol}");
        }
    }
    text
}

fn write_key(text: &mut String, key: &KeySpec) {
    write_comment(text, &key.doc.concat(), &format!("({})", key.what));
    let _ = writeln!(text, ";{}", in_file(key.name, &key.default));
}

fn write_keys_without_effect(text: &mut String, spec: &SectionSpec) {
    let keys: Vec<_> = spec.keys.iter().filter(|key| !key.has_effect).collect();
    if keys.is_empty() {
        return;
    }
    let prefixes = checks::WITHOUT_EFFECT.iter().filter(|(section, _)| *section == spec.name);
    let prefixes: Vec<_> = prefixes.map(|(_, prefix)| format!("{prefix}*")).collect();
    let others =
        if prefixes.is_empty() { String::new() } else { format!(", as are {}", prefixes.join(" and ")) };
    let intro = format!(" Known from the Python service and without effect here{others}:");
    text.push('\n');
    write_comment(text, &intro, "");
    for key in keys {
        write_comment(text, &key.doc.concat(), &format!("({})", key.what));
        let _ = writeln!(text, ";{}", in_file(key.name, &key.default));
    }
}

/// Writes words as comment lines that are not too long.
fn write_comment(text: &mut String, first: &str, second: &str) {
    let mut line = String::from("#");
    for word in first.split_whitespace().chain(std::iter::once(second).filter(|text| !text.is_empty())) {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{line}");
            "#".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}
