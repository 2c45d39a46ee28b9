//! Where results go: standard output or a file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::args::{CheckArgs, Format, SortBy};
use super::format;
use super::record::Record;
use crate::cli::{FAILED, Failure, WRONG_INPUT};

/// Why nothing more can be written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// Whoever read it has had enough: `| head`.
    ReaderGone,
    Failed(Failure),
}

/// Takes results and writes them: as they come, or sorted at the end.
pub(super) struct Output {
    sink: Box<dyn Write + Send>,
    name: String,
    format: Format,
    sort: Option<SortBy>,
    /// Waits for the end when the results are to be sorted.
    kept: Vec<Record>,
    /// Waits for [`Output::flush`].
    text: String,
}

impl Output {
    /// Opens what `args` names; a file is emptied.
    ///
    /// # Errors
    /// It cannot be created.
    pub(super) fn open(args: &CheckArgs) -> Result<Self, Failure> {
        let (sink, name): (Box<dyn Write + Send>, _) = match &args.output {
            None => (Box::new(io::stdout()), "standard output".to_owned()),
            Some(path) => {
                let name = path.display().to_string();
                let file =
                    File::create(path).map_err(|error| Failure::new(FAILED, format!("{name}: {error}")))?;
                (Box::new(file), name)
            }
        };
        let text = format::header(args.format).to_owned();
        Ok(Self { sink, name, format: args.format, sort: args.sort, kept: Vec::new(), text })
    }

    /// Takes one result.
    pub(super) fn add(&mut self, record: Record) {
        if self.sort.is_some() {
            self.kept.push(record);
        } else {
            format::write(self.format, &record, &mut self.text);
        }
    }

    /// Whether [`Output::flush`] would write something.
    pub(super) fn has_text(&self) -> bool {
        !self.text.is_empty()
    }

    /// Writes what has come.
    pub(super) fn flush(&mut self) -> Result<(), WriteError> {
        let written = self.sink.write_all(self.text.as_bytes()).and_then(|()| self.sink.flush());
        self.text.clear();
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => WriteError::ReaderGone,
            _ => WriteError::Failed(Failure::new(FAILED, format!("{}: {error}", self.name))),
        })
    }

    /// Puts what was kept in order, ready to be flushed.
    pub(super) fn finish(&mut self) {
        if let Some(SortBy::Latency) = self.sort {
            // Those that failed have none, and come last.
            let latency = |record: &Record| record.latency_ms.unwrap_or(f64::INFINITY);
            self.kept.sort_by(|one, other| latency(one).total_cmp(&latency(other)));
        }
        for record in self.kept.drain(..) {
            format::write(self.format, &record, &mut self.text);
        }
    }
}

/// Refuses to write over what is read.
///
/// # Errors
/// Names the file that stands for two things.
pub(super) fn refuse_overlap(args: &CheckArgs, sources: &[String]) -> Result<(), Failure> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let lists: Vec<PathBuf> = sources.iter().map(|source| real(Path::new(source))).collect();
    let output = args.output.as_deref().map(real).filter(|path| path.is_file());
    let resume = args.resume.as_deref().map(real);
    for (option, path) in [("--output", &output), ("--resume", &resume)] {
        if let Some(path) = path.as_ref().filter(|path| lists.contains(path)) {
            let text =
                format!("{option} {}: this is one of the lists, and would be overwritten", path.display());
            return Err(Failure::new(WRONG_INPUT, text));
        }
    }
    if output.is_some() && output == resume {
        return Err(Failure::new(WRONG_INPUT, "--output and --resume name the same file"));
    }
    Ok(())
}
