//! Customers of `oppidum load`, for tests that disturb the store meanwhile.

use rustix::process::Signal;

use crate::harness::{Process, Store, until};

/// Starts `oppidum load` on this store, with these additional flags.
pub(crate) fn load(store: &Store, more: &[&str]) -> Process {
    let url = store.url();
    let arguments = [&["load", "--url", &url], more].concat();
    let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
    Process::start("load", store.folder(), &arguments)
}

/// The number of orders that the customers have placed so far.
pub(crate) fn placed(load: &Process) -> usize {
    load.stdout().matches("Transaction Success!").count()
}

/// Waits until the customers have placed `count` orders.
pub(crate) fn await_transactions(load: &Process, count: usize) {
    until(&format!("{count} transactions are placed"), || (count <= placed(load)).then_some(()));
}

/// Interrupts the customers: they confirm their orders, and no request has failed.
pub(crate) fn finish(load: &mut Process) {
    load.signal(Signal::INT);
    let code = load.wait();
    let out = load.stdout();
    let last = out.lines().last().unwrap_or_default();
    assert_eq!(code, Some(0), "{last}");
    assert!(last.contains(" 0 failed"), "{last}");
}
