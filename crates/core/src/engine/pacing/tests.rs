use super::*;
use crate::FailureKind;

const SLOT: Slot = Slot(1);

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_millis(1_000_000_000).plus(Duration::from_secs_f64(seconds))
}

fn failed(streak: u16) -> Failed {
    Failed {
        kind: None,
        elapsed: Some(Duration::from_millis(300)),
        streak,
        up: 0.99,
        works_if_up: 0.9,
        latency_ms: 1500,
        target_down: 0.0005,
    }
}

/// Uses a proxy at its pace and lets it succeed, `uses` times; returns when that ends.
fn work(pace: &mut Pace, pacing: &mut Pacing, slot: Slot, uses: u32, from: Timestamp) -> Timestamp {
    (0..uses).fold(from, |now, _| {
        pace.used(pacing, slot, true, now);
        pace.heard(pacing, now);
        pace.succeeded(pacing, slot, Seconds::at(now));
        pace.free_at(pacing, slot, now)
    })
}

#[test]
fn before_anything_is_seen_a_proxy_may_be_used_every_few_seconds() {
    let pacing = Pacing::default();
    assert!((0.15..0.5).contains(&per_second(pacing.start)), "{}", per_second(pacing.start));
}

#[test]
fn bans_lower_the_start_and_proxies_that_keep_a_pace_up_raise_it() {
    let (mut strict, mut free) = (Pacing::default(), Pacing::default());
    let before = strict.start;
    strict.steps[8].banned += 10.0;
    strict.learn(Seconds::at(at(0.0)));
    assert!(strict.start <= 6 && before > 8, "{before} {}", strict.start);
    for n in 0..16 {
        work(&mut Pace::default(), &mut free, Slot(n), 600, at(1000.0 * f64::from(n)));
    }
    assert!(per_second(free.start) > 20.0, "{}", per_second(free.start));
}

#[test]
fn a_proxy_that_is_refused_after_it_worked_is_banned_and_a_quick_success_revokes_it() {
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    let now = work(&mut pace, &mut pacing, SLOT, 30, at(0.0));
    let before = pace.step(&pacing, SLOT, Seconds::at(now));
    assert!(!pace.failed(&mut pacing, SLOT, failed(1), now).wants_confirmation);
    assert!(
        pace.failed(&mut pacing, SLOT, failed(2), now).wants_confirmation,
        "two refusals ask for a third request"
    );
    pace.is_confirming = true;
    assert!(!pace.failed(&mut pacing, SLOT, failed(3), now).wants_confirmation);
    assert!(pace.step(&pacing, SLOT, Seconds::at(now)) < before);
    assert!(pacing.steps[before].banned > 0.5);
    let soon = now.plus(Duration::from_secs(30));
    pace.succeeded(&mut pacing, SLOT, Seconds::at(soon));
    assert!(pacing.steps[before].banned < f32::EPSILON);
    assert_eq!(pace.above_ceiling, 0);
}

#[test]
fn a_status_that_says_so_is_a_ban_at_once_but_not_for_a_proxy_that_never_worked() {
    let refused = Failed { kind: Some(FailureKind::Blocked), elapsed: None, ..failed(1) };
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    pace.used(&mut pacing, SLOT, true, at(0.0));
    pace.failed(&mut pacing, SLOT, refused, at(1.0));
    assert_eq!(pace.above_ceiling, 0);
    let now = work(&mut pace, &mut pacing, SLOT, 3, at(2.0));
    pace.failed(&mut pacing, SLOT, refused, now);
    assert!(pace.above_ceiling > 0);
}

#[test]
fn one_that_is_not_heard_of_rests_longer_with_each_use_until_it_is() {
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    let mut now = work(&mut pace, &mut pacing, SLOT, 50, at(0.0));
    let usual_s = 1.0 / per_second(pace.step(&pacing, SLOT, Seconds::at(now)));
    let mut rests_s = Vec::new();
    for _ in 0..30 {
        pace.used(&mut pacing, SLOT, true, now);
        let free_at = pace.free_at(&pacing, SLOT, now);
        rests_s.push(free_at.seconds_since(now));
        now = now.plus(Duration::from_millis(1));
    }
    assert!(rests_s[..6].iter().all(|rest_s| *rest_s <= usual_s + 0.01), "{rests_s:?} {usual_s}");
    assert!(rests_s.windows(2).all(|pair| pair[0] <= pair[1] + 0.01), "{rests_s:?}");
    assert!((9.0..=10.1).contains(&rests_s[29].max(usual_s)), "{rests_s:?}");
    assert!(pace.heard(&mut pacing, now));
    assert!(pace.free_at(&pacing, SLOT, now).seconds_since(now) <= usual_s + 0.01);
}

#[test]
fn where_few_uses_are_reported_silence_is_no_news() {
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    for nth in 0..2000 {
        let now = at(f64::from(nth) * 0.1);
        pace.used(&mut pacing, SLOT, true, now);
        if nth % 20 == 0 {
            pace.heard(&mut pacing, now);
            pace.succeeded(&mut pacing, SLOT, Seconds::at(now));
        }
    }
    let now = at(200.0);
    assert_eq!(pace.overdue(&pacing, now), 0, "{}", pace.unheard);
    (0..80).for_each(|_| pace.used(&mut pacing, SLOT, true, now));
    assert!(pace.overdue(&pacing, now) == 0 && pace.unheard > 80);
    (0..200).for_each(|_| pace.used(&mut pacing, SLOT, true, now));
    assert!(pace.overdue(&pacing, now) > 0);
}

#[test]
fn bad_luck_of_a_poor_proxy_is_no_ban() {
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    let now = work(&mut pace, &mut pacing, SLOT, 3, at(0.0));
    for streak in 1..=3 {
        pace.failed(&mut pacing, SLOT, Failed { works_if_up: 0.3, ..failed(streak) }, now);
    }
    assert_eq!(pace.above_ceiling, 0);
}

fn fall_silent(pace: &mut Pace, pacing: &mut Pacing, slot: Slot, now: Timestamp) -> f64 {
    let silent = |streak| Failed { elapsed: Some(Duration::from_secs(10)), ..failed(streak) };
    (1..=3).map(|streak| pace.failed(pacing, slot, silent(streak), now).ban).fold(0.0, |_, last| last)
}

#[test]
fn while_the_target_seems_down_no_failure_is_a_ban_unless_it_says_so() {
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    pace.used(&mut pacing, SLOT, true, at(0.0));
    pace.succeeded(&mut pacing, SLOT, Seconds::at(at(1.0)));
    let mut failed_here = |streak, target_down, kind| {
        let now = at(2.0 + f64::from(streak));
        pace.used(&mut pacing, SLOT, true, now);
        pace.failed(&mut pacing, SLOT, Failed { kind, target_down, ..failed(streak) }, now).ban
    };
    assert!((1..=5).all(|streak| failed_here(streak, 0.9, None) < 0.01));
    assert!(failed_here(6, 0.9, Some(FailureKind::Blocked)) > 0.9);
}

#[test]
fn silence_long_after_a_success_is_a_death_unless_a_probe_says_that_the_proxy_is_up() {
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    let now = work(&mut pace, &mut pacing, SLOT, 3, at(0.0)).plus(Duration::from_secs(200));
    assert!(fall_silent(&mut pace, &mut pacing, SLOT, now) < 0.2);
    assert_eq!(pace.above_ceiling, 0);
    pace.seen_up(&mut pacing, 3, Seconds::at(now.plus(Duration::from_secs(60))));
    assert!(pace.above_ceiling > 0);
}

#[test]
fn silence_in_the_midst_of_work_is_a_ban_and_a_pool_learns_that_its_bans_are_silent() {
    let mut pacing = Pacing::default();
    let judged: Vec<f64> = (0..2)
        .map(|n| {
            let mut pace = Pace::default();
            let now = work(&mut pace, &mut pacing, Slot(n), 3, at(100.0 * f64::from(n)));
            fall_silent(&mut pace, &mut pacing, Slot(n), now)
        })
        .collect();
    assert!(judged[0] > 0.5 && judged[1] > judged[0], "{judged:?}");
    assert!(pacing.shows_as(0, 3) > 2.0 * Pacing::default().shows_as(0, 3));
}

#[test]
fn more_failures_of_a_dead_proxy_never_make_a_ban_of_it() {
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    let now = work(&mut pace, &mut pacing, SLOT, 3, at(0.0)).plus(Duration::from_secs(250));
    for streak in 1..2000 {
        let elapsed = Some(Duration::from_secs(if streak % 3 == 0 { 0 } else { 10 }));
        let judged = pace.failed(&mut pacing, SLOT, Failed { elapsed, ..failed(streak) }, now);
        assert!(judged.ban < 0.5, "{streak}: {judged:?}");
    }
    assert_eq!(pace.above_ceiling, 0);
}

#[test]
fn a_step_that_looked_bad_is_tried_again_after_a_while() {
    let mut pacing = Pacing::default();
    pacing.steps[8] = Step { passed: 0.0, banned: 20.0 };
    pacing.learn(Seconds::at(at(0.0)));
    assert!(!pacing.may_try(8));
    pacing.learn(Seconds::at(at(7200.0)));
    assert!(pacing.may_try(8), "{}", pacing.hazard[8]);
}

#[test]
fn a_ban_is_blamed_on_the_pace_that_a_proxy_comes_from() {
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    let now = work(&mut pace, &mut pacing, SLOT, 5, at(0.0));
    let before = pacing.start;
    pacing.steps[4].banned = 40.0;
    pacing.learn(Seconds::at(now));
    pace.used(&mut pacing, SLOT, true, now);
    pace.failed(&mut pacing, SLOT, Failed { kind: Some(FailureKind::Blocked), ..failed(1) }, now);
    assert!(pacing.start <= 3 && usize::from(pace.failed_step) >= before - 1, "{}", pace.failed_step);
}

#[test]
fn a_ceiling_rises_with_time() {
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    let now = work(&mut pace, &mut pacing, SLOT, 3, at(0.0));
    pace.failed(&mut pacing, SLOT, Failed { kind: Some(FailureKind::Blocked), ..failed(1) }, now);
    pacing.start = STEPS - 1;
    let step =
        |hours: u64| pace.step(&pacing, SLOT, Seconds::at(now.plus(Duration::from_secs(3600 * hours))));
    assert!(step(2) == step(0) + 2, "{} {}", step(0), step(2));
}

#[test]
fn an_untried_pace_is_left_to_a_few() {
    let mut pacing = Pacing { heard_at: Seconds::at(at(0.0)), ..Pacing::default() };
    let next = pacing.start + 1;
    let mut paces = [Pace::default(); 20];
    for (n, pace) in paces.iter_mut().enumerate() {
        pace.used(&mut pacing, Slot(n as u32), true, at(0.0));
    }
    let trying = paces
        .iter()
        .enumerate()
        .filter(|(n, pace)| pace.step(&pacing, Slot(*n as u32), Seconds::at(at(0.0))) == next);
    assert_eq!(trying.count(), SEATS);
}

#[test]
fn junk_takes_no_seat_from_those_that_can_try() {
    let mut pacing = Pacing { heard_at: Seconds::at(at(0.0)), ..Pacing::default() };
    for n in 0..20 {
        Pace::default().used(&mut pacing, Slot(n), false, at(0.0));
    }
    let mut pace = Pace::default();
    pace.used(&mut pacing, Slot(20), true, at(1.0));
    assert_eq!(pace.step(&pacing, Slot(20), Seconds::at(at(1.0))), pacing.start + 1);
    pace.seen_down(&mut pacing, Slot(20), 0, Seconds::at(at(3.0)));
    assert!(!pacing.has_seat(Slot(20)), "its probe failed");
}

#[test]
fn a_failed_probe_speaks_against_a_ban_for_as_long_as_the_failures_last() {
    let judged = |probes: u32| {
        let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
        let now = work(&mut pace, &mut pacing, SLOT, 30, at(0.0));
        pace.failed(&mut pacing, SLOT, failed(1), now);
        pace.failed(&mut pacing, SLOT, failed(2), now);
        for _ in 0..probes {
            pace.seen_down(&mut pacing, SLOT, 2, Seconds::at(now));
        }
        pace.failed(&mut pacing, SLOT, failed(3), now).ban
    };
    assert!(judged(0) > 0.5 && judged(3) < 0.3, "{} {}", judged(0), judged(3));
}

#[test]
fn what_a_banned_proxy_had_passed_is_taken_back() {
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    let now = work(&mut pace, &mut pacing, SLOT, 60, at(0.0));
    let step = usize::from(pace.unpassed) - 1;
    assert!(pacing.steps[step].passed > 0.9);
    pace.failed(&mut pacing, SLOT, Failed { kind: Some(FailureKind::Blocked), ..failed(1) }, now);
    let failed_at = usize::from(pace.failed_step);
    assert!(failed_at >= step && pacing.steps[failed_at].passed < 0.1);
    assert!(pacing.steps[failed_at - 1].passed > 0.9, "the step below, it had passed");
}

#[test]
fn where_nobody_reports_all_live_ones_take_turns() {
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    pace.used(&mut pacing, SLOT, true, at(0.0));
    assert!(!pace.is_dangerous(&pacing, SLOT, at(0.1)));
    Pace::default().succeeded(&mut pacing, Slot(2), Seconds::at(at(0.0)));
    pacing.steps[11].banned = 5.0;
    pacing.learn(Seconds::at(at(0.0)));
    assert!(pace.is_dangerous(&pacing, SLOT, at(0.1)));
    assert!(!pace.is_dangerous(&pacing, SLOT, at(70.0)));
}

#[test]
fn the_few_that_try_the_next_step_are_used_again_after_a_share_of_their_time() {
    let (mut pacing, mut pace) =
        (Pacing { heard_at: Seconds::at(at(0.0)), ..Pacing::default() }, Pace::default());
    pace.used(&mut pacing, SLOT, true, at(0.0));
    assert_eq!(pacing.trying().collect::<Vec<_>>(), [SLOT]);
    let gap_s = 1.0 / per_second(pace.step(&pacing, SLOT, Seconds::at(at(0.0))));
    assert!(!pace.has_waited(&pacing, SLOT, at(0.2 * gap_s)));
    assert!(pace.has_waited(&pacing, SLOT, at(0.4 * gap_s)));
}

#[test]
fn one_that_is_banned_while_it_tries_makes_room_after_a_minute() {
    let mut pacing = Pacing { heard_at: Seconds::at(at(0.0)), ..Pacing::default() };
    let mut pace = Pace::default();
    let mut now = work(&mut pace, &mut pacing, SLOT, 5, at(0.0));
    pace.used(&mut pacing, SLOT, true, now);
    for streak in 1..=3 {
        pace.failed(&mut pacing, SLOT, Failed { kind: Some(FailureKind::Blocked), ..failed(streak) }, now);
    }
    assert!(pacing.has_seat(SLOT) && !pace.is_trying(&pacing, SLOT));
    let mut seats_after = |seconds: f64| {
        now = now.plus(Duration::from_secs_f64(seconds));
        pacing.heard_at = Seconds::at(now);
        (0..20).for_each(|n| Pace::default().used(&mut pacing, Slot(100 + n), true, now));
        pacing.trying().filter(|slot| *slot != SLOT).count()
    };
    assert_eq!(seats_after(1.0), SEATS - 1);
    assert_eq!(seats_after(65.0), SEATS);
}
