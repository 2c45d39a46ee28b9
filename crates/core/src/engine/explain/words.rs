//! An explanation in sentences.

use std::fmt::Write as _;

use super::{Event, Explanation, LatencySource, Standing};
use crate::engine::Strategy;
use crate::{Point, PoolVerdict, ProbeFailure};

impl Explanation {
    /// The same in plain English, one fact per sentence, the most important first.
    pub fn sentences(&self) -> Vec<String> {
        let mut all = vec![self.summary()];
        match self.quarantine() {
            Some(sentence) => all.push(sentence),
            None => all.extend(self.choice()),
        }
        all.push(self.is_it_up());
        all.push(self.last_probe());
        all.extend(self.pool_probe());
        all.push(self.does_it_work_here());
        all.extend(self.last_outcomes());
        all.push(self.speed());
        if self.strategy == Strategy::Adaptive {
            all.push(self.use_again());
        }
        all.push(self.what_would_change_it());
        all
    }

    fn summary(&self) -> String {
        format!(
            "Score {:.1}, {}: {}. Its chance of working here now is {}; its latency leaves {} of that.",
            self.score,
            self.tier.as_str(),
            self.tier_reason,
            percent(self.chance),
            percent(self.latency.factor),
        )
    }

    fn quarantine(&self) -> Option<String> {
        let Standing::Quarantine { labels, clean_probes_left } = self.standing else { return None };
        let labels: Vec<_> = labels.iter().map(Point::as_str).collect();
        Some(format!(
            "In quarantine: {}. It is not handed out, not even as the last one, until {} in a row that could see it did \
             not find it ([validator] allowed_tampering allows it).",
            labels.join(", "),
            count(clean_probes_left.into(), "probe", "s"),
        ))
    }

    fn choice(&self) -> Vec<String> {
        match (self.strategy, self.tiered) {
            (Strategy::Uniform, _) => {
                let share = if self.up.is_live {
                    format!("this one is live, so its chance of being the next is 1 in {}", self.live)
                } else if self.live > 0 {
                    "this one is not live, so it is not handed out".to_owned()
                } else {
                    "nobody is live, so all known ones are tried".to_owned()
                };
                vec![format!(
                    "The pool is uniform: any live proxy, all alike; {share}. The score does not count here."
                )]
            }
            (Strategy::Tiered, Some(tiers)) => {
                let place = if tiers.is_top {
                    format!("in the top tier of {}", tiers.top_len)
                } else if tiers.is_listed {
                    format!("on the list, among the {} that are not in the top tier", tiers.rest_len)
                } else {
                    "not on the list".to_owned()
                };
                vec![format!(
                    "The pool is tiered: the proxy has {} points and is {place}; its chance of being the next is {}. \
                     The score does not count here.",
                    number(tiers.points),
                    percent(tiers.share)
                )]
            }
            (Strategy::Tiered | Strategy::Adaptive, _) => self.rank(),
        }
    }

    fn rank(&self) -> Vec<String> {
        let mut all = Vec::new();
        match self.standing {
            Standing::Ready { place: Some(place), of } => {
                all.push(format!("It may be handed out now: place {place} of {of} that are ready."));
            }
            Standing::Ready { place: None, of } => {
                all.push(format!("It may be handed out now, behind more than 2,000 of {of} that are ready."));
            }
            Standing::Cooling { in_s } => all.push(format!(
                "It was used a moment ago and is ready again in {}; sooner only if all others are much worse.",
                time(in_s)
            )),
            Standing::Resting { in_s, trial } => all.push(format!(
                "It rests after {} failures in a row, {} more; then one request is tried ({} trial).",
                self.here.failures_in_a_row,
                time(in_s),
                ordinal(trial)
            )),
            Standing::Apart => all.push(
                "It is no candidate: not live, and never used here. It is tried by chance when nothing better is known."
                    .to_owned(),
            ),
            Standing::Quarantine { .. } => {}
        }
        if self.known_dead_factor < 1.0 {
            all.push(format!(
                "Its last probe failed and nothing has worked since, which leaves {} of its rank: every live proxy comes \
                 first.",
                percent(self.known_dead_factor)
            ));
        }
        all
    }

    fn is_it_up(&self) -> String {
        let up = &self.up;
        let list = if up.list.is_empty() {
            "those without a list".to_owned()
        } else {
            format!("list {:?}", up.list)
        };
        let mut text = format!(
            "Is it up? {}. Of all proxies {} are, of {list} {} ({} observations), of its neighbourhood {} {} ({}). It was \
             seen up itself in {} of {} observations: in the long run {}.",
            percent(up.up_now),
            percent(up.priors.all.mean),
            percent(up.priors.list.mean),
            number(up.priors.list.observations),
            up.neighbourhood,
            percent(up.priors.neighbourhood.mean),
            number(up.priors.neighbourhood.observations),
            number(up.seen_up),
            number(up.observations),
            percent(up.uptime),
        );
        if let Some(ago_s) = up.shifted_ago_s
            && up.shift.abs() >= 0.005
        {
            let _ = write!(
                text,
                " Recent probes and outcomes add {:+.2} log-odds, the last one {} ago; they fade within half an hour.",
                up.shift,
                time(ago_s)
            );
        }
        text
    }

    fn last_probe(&self) -> String {
        let up = &self.up;
        match (up.probed_ago_s, up.passed_ago_s, up.is_live) {
            (None, _, true) => "It was never probed, and has worked for a client.".to_owned(),
            (None, _, false) => "It was never probed.".to_owned(),
            (Some(ago_s), Some(passed_s), true) if passed_s <= ago_s => {
                format!("It passed its last probe, {} ago.", time(ago_s))
            }
            (Some(ago_s), _, true) => {
                format!("It failed its last probe, {} ago, and has worked for a client since.", time(ago_s))
            }
            (Some(ago_s), Some(passed_s), false) => format!(
                "It failed its last probe, {} ago; it last passed one {} ago.",
                time(ago_s),
                time(passed_s)
            ),
            (Some(ago_s), None, false) => {
                format!("It failed its last probe, {} ago, and never passed one.", time(ago_s))
            }
        }
    }

    fn does_it_work_here(&self) -> String {
        let here = &self.here;
        let mut text = format!("Does it work in this pool if it is up? {}. ", percent(here.works_if_up));
        let is_used = here.successes > 0 || here.failures > 0;
        if !is_used && here.effective_trials < 0.05 {
            let _ = write!(text, "It was never used here, so it counts like the pool's newcomers.");
        } else {
            let reported = if is_used {
                let successes = count(here.successes, "success", "es");
                format!("Reported are {successes} and {}, which", count(here.failures, "failure", "s"))
            } else {
                "Nothing is reported; probes of this pool".to_owned()
            };
            let with_probes =
                if is_used && here.pool_probe.is_some() { " with this pool's probes" } else { "" };
            let _ = write!(
                text,
                "{reported} count{with_probes} as {} of {} trials by now, and 3 more with the mean of the pool's \
                 newcomers, {}.",
                number(here.effective_successes),
                number(here.effective_trials),
                percent(here.newcomer_mean)
            );
        }
        if here.target_down >= 0.05 {
            let _ = write!(
                text,
                " The target itself may be down ({}): failures are blamed on proxies the less.",
                percent(here.target_down)
            );
        }
        text
    }

    fn pool_probe(&self) -> Option<String> {
        let probe = self.here.pool_probe?;
        let ago = time(probe.ago_s);
        let why = probe.verdict.failure().map(|why| match why {
            ProbeFailure::Status(status) => format!("status {status}"),
            ProbeFailure::TextMissing => "the answer lacks text that must appear".to_owned(),
            ProbeFailure::TextForbidden => "the answer has text that must not appear".to_owned(),
            ProbeFailure::TooSmall => "the answer is too small".to_owned(),
            other => other.as_str().replace('_', " "),
        });
        let why = why.unwrap_or_default();
        let text = match probe.verdict {
            PoolVerdict::Works => format!("It passed this pool's probe {ago} ago: it works there."),
            PoolVerdict::Blocked(_) => {
                format!("It failed this pool's probe {ago} ago: the target turned it away ({why}).")
            }
            PoolVerdict::WrongAnswer(_) => format!(
                "It failed this pool's probe {ago} ago: another answer than the one expected came through it ({why})."
            ),
            PoolVerdict::NoAnswer(_) => {
                format!("It failed this pool's probe {ago} ago: no whole answer came ({why}).")
            }
            PoolVerdict::Unreachable(_) => format!(
                "It could not be reached for this pool's probe {ago} ago ({why}), which says nothing about the pool."
            ),
            PoolVerdict::Nothing => return None,
        };
        Some(text)
    }

    fn last_outcomes(&self) -> Option<String> {
        let ago_s = self.here.outcome_ago_s?;
        let is_by_probe = self.here.pool_probe.is_some_and(|probe| probe.is_latest)
            || (self.here.successes == 0 && self.here.failures == 0);
        if is_by_probe {
            let fast = self.here.fast;
            return (fast.abs() >= 0.005)
                .then(|| format!("The last outcomes and this pool's probe add {fast:+.2} log-odds now and fade within minutes."));
        }
        let what = match self.here.failures_in_a_row {
            0 => "success".to_owned(),
            1 => "failure".to_owned(),
            n => format!("failure, number {n} in a row,"),
        };
        Some(format!(
            "The last outcome here was a {what} {} ago; the last ones add {:+.2} log-odds now and fade within minutes.",
            time(ago_s),
            self.here.fast
        ))
    }

    fn speed(&self) -> String {
        let (ms, factor) = (self.latency.ms, percent(self.latency.factor));
        let text = match self.latency.source {
            LatencySource::Clients => format!("Clients report {ms} ms, which leaves {factor} of the score."),
            LatencySource::Probe => {
                format!("Its last passed probe took {ms} ms, which leaves {factor} of the score.")
            }
            LatencySource::Assumed => {
                format!(
                    "Nobody has measured its latency: {ms} ms are assumed, which leaves {factor} of the score."
                )
            }
        };
        if self.latency.counted_ms > ms {
            return format!(
                "{text} It counts as {} ms: what tampers is not rewarded for speed.",
                self.latency.counted_ms
            );
        }
        text
    }

    fn use_again(&self) -> String {
        let pacing = &self.pacing;
        if let Some(gap_s) = pacing.set_gap_s {
            return format!("Between two uses {} are set by hand (proxy_cooldown_ms).", time(gap_s));
        }
        let learned = &pacing.learned;
        let mut text = format!(
            "Used now, it would rest {} here: step {} of {}, {} uses a second; the risk of a ban at that pace is {}. The pool \
             lets proxies begin at step {}; this one has passed those below {}.",
            time(pacing.gap_s),
            learned.step,
            learned.steps - 1,
            rate(learned.per_second),
            percent(learned.hazard),
            learned.start,
            learned.unpassed
        );
        if let Some(ceiling) = learned.ceiling {
            let _ = write!(text, " It was banned here, so it stays at step {ceiling} or below for now.");
        }
        if learned.is_trying {
            text.push_str(" It is one of the few that try the next step.");
        }
        if learned.overdue > 0 {
            let _ = write!(
                text,
                " It was used {} times since its last outcome, {} more than is usual here: each of these doubles its rest.",
                learned.unheard, learned.overdue
            );
        }
        text
    }

    fn what_would_change_it(&self) -> String {
        let one = |effect: &super::Effect| {
            let event = match effect.event {
                Event::Success => "one more success",
                Event::Failure => "one more failure",
                Event::ProbePassed => "a passed probe",
                Event::ProbeFailed => "a failed probe",
            };
            let points = effect.points.map_or(String::new(), |points| format!(", {} points", number(points)));
            format!("{event}: {:.1} ({}{points})", effect.score, effect.tier.as_str())
        };
        format!(
            "From {:.1} it would go to, after {}.",
            self.score,
            self.effects.iter().map(one).collect::<Vec<_>>().join("; ")
        )
    }
}

/// A share as a person reads it: more digits near 0 and 1.
fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent > 0.0 && (percent < 1.0 || (percent > 99.0 && percent < 99.95)) {
        format!("{percent:.1}%")
    } else {
        format!("{percent:.0}%")
    }
}

fn count(n: u32, what: &str, plural: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { plural })
}

/// Uses a second, from once in two minutes to hundreds.
fn rate(per_second: f64) -> String {
    if per_second < 1.0 { format!("{per_second:.3}") } else { format!("{per_second:.1}") }
}

/// At most one digit behind the point.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

fn ordinal(n: u16) -> String {
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}
