//! The course of a run: lists in, probes, results out, and how it ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use smartproxy_core::{Protocol, ProxyAddr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::args::CheckArgs;
use super::collect::{BATCH, Collector};
use super::filter::Filter;
use super::journal::{Head, Journal};
use super::output::{self, Output, WriteError};
use super::progress::{self, Progress, say};
use super::source::{self, Entries, Reading};
use super::tally::{Counts, Tally};
use super::work::Work;
use crate::app::ProbeTools;
use crate::cli::{Common, FAILED, Failure, WRONG_INPUT};
use crate::config::{Config, defaults};
use crate::validator::{ProbeTarget, Prober};

/// How long the targets have to answer without a proxy.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// Reads the lists, probes what is on them, and says what came of it.
///
/// # Errors
/// See the exit codes in `args`.
pub(in crate::cli) fn check(common: &Common, args: &CheckArgs) -> Result<(), Failure> {
    let mut config = common.load()?.config;
    configure(args, &mut config)?;
    let sources = source::named(&args.sources).ok_or_else(|| {
        Failure::new(WRONG_INPUT, "name a list: a file, a URL, or - for standard input (see `check --help`)")
    })?;
    output::refuse_overlap(args, &sources)?;
    if common.debug {
        let to_stderr = tracing_subscriber::fmt().with_writer(io::stderr).with_target(false);
        to_stderr.with_max_level(tracing::Level::DEBUG).init();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let ended = runtime.block_on(run(args, &config, &sources, common.debug));
    // A name that is still being looked up, or a result that nobody reads, must not keep us.
    runtime.shutdown_background();
    ended
}

/// Puts what `args` say in the place of what `config` says.
fn configure(args: &CheckArgs, config: &mut Config) -> Result<(), Failure> {
    let wrong = |text: String| Failure::new(WRONG_INPUT, text);
    let validator = &mut config.validator;
    if !args.target.is_empty() {
        let parse = |text: &String| {
            ProbeTarget::parse(text).map_err(|error| wrong(format!("--target: {error}")))?;
            Url::parse(text.trim()).map_err(|error| wrong(format!("--target {text:?}: {error}")))
        };
        validator.targets = args.target.iter().map(parse).collect::<Result<_, _>>()?;
        validator.threshold = defaults::VALIDATION_SUCCESS_THRESHOLD;
        validator.judge_urls.clear();
    }
    if !args.judge.is_empty() {
        if validator.judge_key.is_none() {
            return Err(wrong("--judge: its key is missing: set SMARTPROXY_VALIDATOR__JUDGE_KEY".to_owned()));
        }
        let parse = |text: &String| match Url::parse(text.trim()) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
            _ => Err(wrong(format!("--judge {text:?}: no http or https URL"))),
        };
        validator.judge_urls = args.judge.iter().map(parse).collect::<Result<_, _>>()?;
        validator.threshold = defaults::VALIDATION_SUCCESS_THRESHOLD;
    }
    validator.timeout = args.timeout.unwrap_or(validator.timeout);
    // Every proxy has one chance, so each gets the whole time.
    let connect_timeout = args.connect_timeout.or(validator.connect_timeout);
    validator.connect_timeout =
        Some(connect_timeout.unwrap_or(defaults::VALIDATION_CONNECT_TIMEOUT).min(validator.timeout));
    validator.max_new_connections_per_second =
        args.max_new_connections_per_second.unwrap_or(validator.max_new_connections_per_second);
    // A day's bytes are the service's.
    validator.max_bytes_per_day = None;
    validator.workers = args.workers.or(validator.workers);
    config.fetcher.allow_private_proxies |= args.allow_private;
    if !args.country.is_empty() && config.geo.country_db.is_none() {
        return Err(wrong("--country: no file of countries is configured ([geo] country_db)".to_owned()));
    }
    if args.https && !asked(config).iter().any(|url| url.scheme() == "https") {
        return Err(wrong(
            "--https: no target or judge is an https URL, so it cannot be found out; add one with --target"
                .to_owned(),
        ));
    }
    Ok(())
}

/// What probes ask: the judges, or without any the targets.
fn asked(config: &Config) -> &[Url] {
    let validator = &config.validator;
    if validator.judge_urls.is_empty() { &validator.targets } else { &validator.judge_urls }
}

async fn run(args: &CheckArgs, config: &Config, sources: &[String], is_logging: bool) -> Result<(), Failure> {
    let tools = ProbeTools::new(config)?;
    let (entries, unread) = read_lists(args, config, &tools, sources).await?;
    let asked = asked(config);
    let head =
        Head::new(asked.iter().map(Url::to_string).collect(), config.validator.threshold.needed(asked.len()));
    let journal = args.resume.as_deref().map(|path| Journal::open(path, &head)).transpose()?;
    let total = entries.proxies.len();
    let mut collector = Collector {
        proxies: Arc::default(),
        filter: Filter::new(args, &config.validator.allowed_tampering),
        geo: tools.geo.clone(),
        output: Output::open(args)?,
        journal: None,
        tally: Tally::default(),
        counts: Arc::default(),
        pause: progress::Pause::never(),
        lines: String::new(),
    };
    let mut done = vec![false; total];
    if let Some(mut journal) = journal {
        take_known(args, &mut journal, &entries, &mut done, &mut collector)?;
        collector.journal = Some(journal);
    }
    let proxies: Arc<Vec<ProxyAddr>> = Arc::new(entries.proxies);
    collector.proxies = Arc::clone(&proxies);
    let earlier = collector.tally.done();
    let left = done.iter().filter(|done| !**done).count();
    if args.workers.is_some_and(|asked| asked as usize > tools.workers) && !args.quiet {
        say(&format!("--workers: the limit of open files allows {}", tools.workers));
    }
    let prober = Arc::clone(&tools.prober);
    let answered = left == 0 || targets_answer(&prober).await;
    if !answered && !args.quiet {
        say("no target answers without a proxy: is it up, and is this machine online?");
    }
    let work = Work {
        prober: tools.prober,
        proxies,
        done,
        allow_special: config.fetcher.allow_private_proxies,
        finds_https: args.https,
        stop: CancellationToken::new(),
        next: AtomicUsize::new(0),
    };
    let mut progress = Progress::new(total as u64, earlier, args.quiet || is_logging);
    collector.pause = progress.pause();
    let began = Instant::now();
    let course = course(Arc::new(work), tools.workers.min(left), collector, &mut progress).await;
    progress.end();
    let End { tally, result, panic } = course?;
    match result {
        Err(WriteError::ReaderGone) => return Ok(()),
        Err(WriteError::Failed(failure)) => return Err(failure),
        Ok(()) => {}
    }
    if !args.quiet {
        if answered && left > 0 && !targets_answer(&prober).await {
            say("no target answers without a proxy any more: those that failed last may not be to blame");
        }
        say(tally.summary(total as u64, earlier, began.elapsed()).trim_end());
    }
    if let Some(error) = panic {
        return Err(Failure::new(FAILED, format!("a probe ended in the middle, please report it: {error}")));
    }
    verdict(args, &tally, total as u64, unread)
}

/// Asks the targets without a proxy, which also teaches what their answers look like. Whether one answers.
async fn targets_answer(prober: &Prober) -> bool {
    // One that is slow is not down.
    tokio::time::timeout(LOOK_TIMEOUT, prober.look_directly()).await != Ok(0)
}

/// Reads every list that can be read; also returns how many could not.
async fn read_lists(
    args: &CheckArgs,
    config: &Config,
    tools: &ProbeTools,
    sources: &[String],
) -> Result<(Entries, usize), Failure> {
    let protocols = if args.protocol.is_empty() { &[Protocol::Http][..] } else { &args.protocol };
    let reading = Reading {
        protocols,
        only: &args.only,
        allow_special: config.fetcher.allow_private_proxies,
        fetcher: &tools.fetcher,
    };
    let mut entries = Entries::default();
    let mut unread = 0;
    for source in sources {
        match reading.read(source, &mut entries).await {
            Err(error) => {
                unread += 1;
                say(&format!("smartproxy: {error:#}"));
            }
            Ok(given) if given.listed == given.left_out => {
                say(&format!("smartproxy: {}: {}", source::shown(source), source::why_nothing(&given)));
            }
            Ok(given) if !args.quiet => say(&format!("{}: {given}", source::shown(source))),
            Ok(_) => {}
        }
    }
    match (entries.proxies.is_empty(), unread) {
        (false, _) => Ok((entries, unread)),
        (true, 0) => Err(Failure::new(WRONG_INPUT, "nothing to probe")),
        (true, _) => Err(Failure::new(FAILED, "nothing to probe")),
    }
}

/// Takes over what the journal knows of `entries`.
fn take_known(
    args: &CheckArgs,
    journal: &mut Journal,
    entries: &Entries,
    done: &mut [bool],
    collector: &mut Collector,
) -> Result<(), Failure> {
    let mut others = 0_u64;
    let known = journal.read(|record| {
        let at = ProxyAddr::parse(&record.url).ok().and_then(|proxy| entries.position(&proxy));
        match at.map(|at| &mut done[at as usize]) {
            Some(done) if !*done => {
                *done = true;
                collector.take_known(record);
            }
            _ => others += 1,
        }
    })?;
    if known.records > 0 && !args.quiet {
        say(&format!("going on: {} of {} are done", collector.tally.done(), entries.proxies.len()));
    }
    for (count, what) in
        [(known.broken, "broken lines are ignored"), (others, "results are of other proxies")]
    {
        if count > 0 && !args.quiet {
            say(&format!("in the journal {count} {what}"));
        }
    }
    Ok(())
}

/// How the probes and the results ended.
struct End {
    tally: Tally,
    result: Result<(), WriteError>,
    /// Of a worker.
    panic: Option<String>,
}

/// Lets the workers work until all is done and written, until nothing more can be written, or until somebody stops it.
async fn course(
    work: Arc<Work>,
    workers: usize,
    collector: Collector,
    progress: &mut Progress,
) -> Result<End, Failure> {
    let mut interrupts = Interrupts::new()?;
    let counts: Arc<Counts> = Arc::clone(&collector.counts);
    let stop = work.stop.clone();
    let (send, probed) = mpsc::channel(2 * BATCH);
    let (ended, mut end) = oneshot::channel();
    // Not one of the runtime's threads: it may be stuck in a write when we have to end.
    std::thread::Builder::new()
        .name("results".to_owned())
        .spawn(move || ended.send(collector.run(probed)).is_ok())
        .context("no thread for the results")?;
    let mut running = JoinSet::new();
    for _ in 0..workers {
        running.spawn(Arc::clone(&work).run(send.clone()));
    }
    drop((work, send));
    let mut ticks = tokio::time::interval(progress::BAR_INTERVAL);
    let mut panic = None;
    let mut is_interrupted = false;
    loop {
        tokio::select! {
            result = &mut end => {
                // With nobody to take results, probes that are under way are for nothing.
                running.abort_all();
                let (tally, result) = result.map_err(|_| Failure::new(FAILED, "the writer of results died"))?;
                return Ok(End { tally, result, panic });
            }
            Some(worker) = running.join_next() => {
                panic = panic.or(worker.err().map(|error| error.to_string()));
            }
            () = interrupts.next() => {
                if is_interrupted {
                    progress.end();
                    return Err(Failure::new(FAILED, format!("stopped at once; {}", how_to_go_on())));
                }
                is_interrupted = true;
                stop.cancel();
                progress.say("stopping when the probes under way have ended; Ctrl-C again stops at once");
            }
            _ = ticks.tick() => progress.show(&counts, Instant::now()),
        }
    }
}

/// The exit code, and why.
fn verdict(args: &CheckArgs, tally: &Tally, total: u64, unread: usize) -> Result<(), Failure> {
    let failed = |text: String| Err(Failure::new(FAILED, text));
    if tally.done() < total {
        return failed(format!("interrupted: {} of {total} are done; {}", tally.done(), how_to_go_on()));
    }
    if unread > 0 {
        return failed(format!("{unread} of {} lists could not be read", args.sources.len().max(1)));
    }
    match (tally.taken, tally.live()) {
        (0, 0) => failed("no proxy passed".to_owned()),
        (0, live) => failed(format!("none of {live} live proxies is as wanted")),
        _ => Ok(()),
    }
}

/// What to type.
fn how_to_go_on() -> String {
    let words: Vec<String> = std::env::args().collect();
    if words.iter().any(|word| word == "--resume" || word.starts_with("--resume=")) {
        let words: Vec<String> = words.into_iter().map(quoted).collect();
        format!("go on with: {}", words.join(" "))
    } else {
        "with --resume FILE, a run can go on where it was stopped".to_owned()
    }
}

/// A word as a shell reads it back.
fn quoted(word: String) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,=@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// SIGINT and SIGTERM.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("signals");
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_are_quoted_for_the_shell_only_where_needed() {
        for (word, wanted) in [
            ("a/b.txt", "a/b.txt"),
            ("", "''"),
            ("a b", "'a b'"),
            ("http://a/?x=1&y", "'http://a/?x=1&y'"),
            ("it's", r"'it'\''s'"),
            ("!CN", "'!CN'"),
        ] {
            assert_eq!(quoted(word.to_owned()), wanted);
        }
    }
}
