use super::*;

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
    }
}

/// Uses a proxy at its pace and lets it succeed, `uses` times; returns when that ends.
fn work(pace: &mut Pace, pacing: &mut Pacing, slot: Slot, uses: u32, from: Timestamp) -> Timestamp {
    (0..uses).fold(from, |now, _| {
        pace.used(pacing, slot, now);
        pace.succeeded(pacing, slot, Seconds::at(now));
        pace.free_at(pacing, slot, now)
    })
}

#[test]
fn before_anything_is_seen_a_proxy_may_be_used_about_once_a_second() {
    let pacing = Pacing::default();
    assert!((0.5..2.0).contains(&per_second(pacing.start)), "{}", per_second(pacing.start));
}

#[test]
fn bans_lower_the_start_and_proxies_that_keep_a_pace_up_raise_it() {
    let (mut strict, mut free) = (Pacing::default(), Pacing::default());
    strict.steps[8].banned += 10.0;
    strict.learn();
    assert_eq!(strict.start, 7);
    for n in 0..8 {
        work(&mut Pace::default(), &mut free, Slot(n), 600, at(1000.0 * f64::from(n)));
    }
    assert!(per_second(free.start) > 20.0, "{}", per_second(free.start));
}

#[test]
fn a_proxy_that_is_refused_after_it_worked_is_banned_and_a_quick_success_revokes_it() {
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    let now = work(&mut pace, &mut pacing, SLOT, 30, at(0.0));
    let before = pace.step(&pacing, SLOT, Seconds::at(now));
    assert!(!pace.failed(&mut pacing, SLOT, failed(1), now));
    assert!(pace.failed(&mut pacing, SLOT, failed(2), now), "two refusals ask for a third request");
    pace.is_confirming = true;
    assert!(!pace.failed(&mut pacing, SLOT, failed(3), now));
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
    pace.used(&mut pacing, SLOT, at(0.0));
    pace.failed(&mut pacing, SLOT, refused, at(1.0));
    assert_eq!(pace.above_ceiling, 0);
    let now = work(&mut pace, &mut pacing, SLOT, 3, at(2.0));
    pace.failed(&mut pacing, SLOT, refused, now);
    assert!(pace.above_ceiling > 0);
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

#[test]
fn silence_is_a_death_unless_a_probe_says_that_the_proxy_is_up() {
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    let now = work(&mut pace, &mut pacing, SLOT, 3, at(0.0));
    for streak in 1..=3 {
        let silent = Failed { elapsed: Some(Duration::from_secs(10)), ..failed(streak) };
        pace.failed(&mut pacing, SLOT, silent, now);
    }
    assert_eq!(pace.above_ceiling, 0);
    pace.seen_up(&mut pacing, 3, Seconds::at(now.plus(Duration::from_secs(60))));
    assert!(pace.above_ceiling > 0);
}

#[test]
fn a_ceiling_rises_with_time() {
    let (mut pacing, mut pace) = (Pacing::default(), Pace::default());
    let now = work(&mut pace, &mut pacing, SLOT, 3, at(0.0));
    pace.failed(&mut pacing, SLOT, Failed { kind: Some(FailureKind::Blocked), ..failed(1) }, now);
    pacing.start = STEPS - 1;
    let step =
        |hours: u64| pace.step(&pacing, SLOT, Seconds::at(now.plus(Duration::from_secs(3600 * hours))));
    assert!(step(2) == step(0) + 4, "{} {}", step(0), step(2));
}

#[test]
fn an_untried_pace_is_left_to_a_few() {
    let mut pacing = Pacing::default();
    let next = pacing.start + 1;
    let mut paces = [Pace::default(); 20];
    for (n, pace) in paces.iter_mut().enumerate() {
        pace.used(&mut pacing, Slot(n as u32), at(0.0));
    }
    let trying = paces
        .iter()
        .enumerate()
        .filter(|(n, pace)| pace.step(&pacing, Slot(*n as u32), Seconds::at(at(0.0))) == next);
    assert_eq!(trying.count(), SEATS);
}

#[test]
fn a_pool_that_has_to_hand_out_junk_risks_more() {
    let mut pacing = Pacing::default();
    let step = 10;
    pacing.steps[step] = Step { passed: 11.0, banned: 9.0 };
    pacing.learn();
    assert!(!pacing.may_try(step), "{}", pacing.hazard[step]);
    for n in 0..400 {
        pacing.note_handout(n % 4 > 0);
    }
    assert!(pacing.may_try(step));
    for _ in 0..1000 {
        pacing.note_handout(true);
    }
    assert!(!pacing.may_try(step));
}
