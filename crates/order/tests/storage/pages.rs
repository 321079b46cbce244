//! Damage in the file of the history, in the pages of its database.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use ledger::ledger::Windows;
use order::history::FILE;
use order::history::block_source::NoSource;
use order::history::open_error::{OpenError, advice_on_panic};
use order::raft::state_machine::StateMachine;
use parking_lot::Mutex;

use crate::history::{SLOW, apply, entries, open};
use crate::kit::killed;

/// A page of the history's file is damaged at any place. The history then opens, reports the
/// damage, or its database panics, which the process also treats as damage. It is never taken for a
/// fault that another start could cure.
#[tokio::test]
async fn a_bit_flipped_anywhere_in_the_history_is_damage_or_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut machine, view) = open(folder.path(), SLOW);
    apply(&mut machine, entries(1..=40)).await;
    view.flush().await.unwrap();
    let left = killed(folder.path());
    drop((machine, view));
    let path = left.path().join(FILE);
    let whole = fs::read(&path).unwrap();
    let places: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let before = panic::take_hook();
    let strange = Arc::new(Mutex::new(Vec::new()));
    let seen = strange.clone();
    panic::set_hook(Box::new(move |panic| {
        let place = panic.location().unwrap().file().to_owned();
        if advice_on_panic(&place).is_none() {
            seen.lock().push(panic.to_string());
        }
    }));
    let mut harmed = 0;
    for place in places.iter().step_by(places.len() / 200 + 1) {
        let mut bytes = whole.clone();
        bytes[*place] ^= 1 << (place % 8);
        fs::write(&path, &bytes).unwrap();
        let opening = AssertUnwindSafe(|| {
            StateMachine::open(left.path(), Windows::default(), SLOW, Arc::new(NoSource)).map(drop)
        });
        match panic::catch_unwind(opening) {
            Ok(Ok(())) => {}
            Ok(Err(OpenError::Damaged { .. })) | Err(_) => harmed += 1,
            Ok(Err(other)) => strange.lock().push(format!("byte {place}: {other}")),
        }
    }
    panic::set_hook(before);
    assert_eq!(*strange.lock(), Vec::<String>::new());
    assert!(0 < harmed, "no flipped bit was ever read");
}
