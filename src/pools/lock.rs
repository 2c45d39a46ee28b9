//! A lock with two kinds of holders: callers, who hold it for microseconds, and work over all proxies, which takes it
//! portion by portion and lets every waiting caller go first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// A mutex in which a caller waits for one portion of work at most, whatever the number of portions.
///
/// Not `parking_lot`'s: its waiters yield their processor at once, which costs more than the lock is held for; the
/// standard one spins first. But the standard one lets whoever unlocks it lock it again, for as long as it likes.
#[derive(Debug, Default)]
pub(super) struct CallersFirst<T> {
    value: Mutex<T>,
    /// Callers that found it locked and wait.
    waiting: AtomicUsize,
}

impl<T> CallersFirst<T> {
    pub(super) const fn new(value: T) -> Self {
        Self { value: Mutex::new(value), waiting: AtomicUsize::new(0) }
    }

    /// The lock, for a caller. A panic under it leaves counts that are a little off, no more: what is learned is
    /// numbers.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        match self.value.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.waiting.fetch_add(1, Ordering::Relaxed);
                let guard = self.value.lock().unwrap_or_else(PoisonError::into_inner);
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                guard
            }
        }
    }

    /// The lock, for one portion of longer work.
    pub(super) fn lock_for_portion(&self) -> MutexGuard<'_, T> {
        while self.waiting.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_caller_is_not_kept_waiting_by_work_that_locks_again_and_again() {
        let lock = Arc::new(CallersFirst::new(0_u64));
        let is_over = Arc::new(AtomicBool::new(false));
        let worker = {
            let (lock, is_over) = (Arc::clone(&lock), Arc::clone(&is_over));
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let mut portions = lock.lock_for_portion();
                    *portions += 1;
                    // A portion as long as that: what a caller may have to wait for.
                    let begun = Instant::now();
                    while begun.elapsed() < Duration::from_millis(1) {
                        std::hint::spin_loop();
                    }
                }
            })
        };
        while *lock.lock() == 0 {}
        let mut passed = 0;
        for _ in 0..50 {
            let before = *lock.lock_for_portion();
            passed += *lock.lock() - before;
        }
        is_over.store(true, Ordering::Relaxed);
        worker.join().unwrap();
        // Between two looks a few portions; without the rule it would be dozens.
        assert!(passed <= 50 * 3, "{passed} portions during 50 waits");
    }
}
