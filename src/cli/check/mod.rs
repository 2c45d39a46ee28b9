//! `smartproxy check [FILE|URL|-]`: the probes of the service as a tool by itself.
//!
//! Read in this order: `args` (what can be asked for), `source` (lists come in), `run` (the course of a run), `work` (the
//! probes), `collect` (where they come together), `record`, `filter`, `format`, `output` (results), `journal` (what is
//! done, for another run), `tally` and `progress` (what people see meanwhile and at the end).

mod args;
mod collect;
mod filter;
mod format;
mod journal;
mod output;
mod progress;
mod record;
mod run;
mod source;
mod tally;
mod work;

pub(super) use args::CheckArgs;
pub(super) use run::check;
