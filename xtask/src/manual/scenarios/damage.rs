//! Damage on disk: what a replica reports, and what it repairs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::manual::page::Block;
use crate::manual::scenarios::terminals::Terminals;
use crate::manual::stage::{Stage, ends_with};

/// Damages a log in its middle and at its end, an identity, and a block of the history.
pub(crate) fn play(stage: &Stage<'_>) -> Result<()> {
    let mut store = Terminals::open(stage.host("damage")?, "")?;
    let order = r#"{"name":"GameStart","quantity":1,"type":"sell"}"#;
    for key in ["the-first-key", "the-damaged-key", "the-last-key"] {
        store.host.ok(&format!(
            "curl --fail -H 'Idempotency-Key: {key}' --json '{order}' \
             http://127.0.0.1:1234/orders"
        ))?;
    }
    store.host.await_store(3)?;
    store.stop(123)?;
    let heading = "Something on disk is damaged";
    let block = stage.operating(heading, 1)?;
    block.has_lines(3)?;

    let wal = newest(&store.data(123, "log"))?;
    let middle = length(&wal)? / 2;
    changed(
        &wal,
        |bytes| flip(bytes, middle),
        || store.refuses(123, block, 2, block.line_with("is damaged at byte")?),
    )?;
    changed(
        &wal,
        |bytes| bytes.truncate(middle),
        || store.refuses(123, block, 2, block.line_with("is damaged at its end")?),
    )?;
    let identity = store.data(123, "identity.toml");
    let end = length(&identity)? - 3;
    changed(
        &identity,
        |bytes| flip(bytes, end),
        || store.refuses(123, block, 2, block.line_with("identity.toml")?),
    )?;

    // The two other replicas go on.
    store.host.order(1)?;
    let history = store.data(123, "history/blocks.redb");
    let mut bytes = fs::read(&history).context("read the history")?;
    let key = b"the-damaged-key";
    while let Some(place) = bytes.windows(key.len()).position(|window| window == key) {
        flip(&mut bytes, place);
    }
    fs::write(&history, bytes).context("damage the history")?;
    store.start(123)?;
    store.replica(123)?.says(0, stage.operating(heading, 3)?)?;
    store.host.await_store(3)?;
    store.host.follow_and_see(stage.operating(heading, 4)?, stage.operating(heading, 5)?)?;
    forgotten(&mut store, stage.operating(heading, 2)?)?;
    store.host.ok("oppidum verify").map(|_| ())
}

/// The log and the history have lost the same end; the leader knows what was acknowledged.
fn forgotten(store: &mut Terminals, block: &Block) -> Result<()> {
    store.kill(123)?;
    store.host.ok("cp -a oppidum-data/order-123 older")?;
    store.start(123)?;
    store.host.await_store(3)?;
    store.host.order(30)?;
    store.host.await_store(3)?;
    store.kill(123)?;
    store.host.ok("cp -a oppidum-data/order-123 own; cd oppidum-data/order-123
         rm -rf log history; cp -a ../../older/log ../../older/history .")?;
    store.start(123)?;
    let mut ended = store.end_of(123)?;
    // The line names the replica that was reached first, 345 or 456.
    ended.text = ended.text.replace("as replica 345 knows", "as replica 456 knows");
    ends_with(block, 2, block.line_with("has forgotten")?, &ended)?;
    store.host.ok("rm -rf oppidum-data/order-123; mv own oppidum-data/order-123")?;
    store.start(123)?;
    store.host.await_store(3)
}

fn flip(bytes: &mut [u8], at: usize) {
    bytes[at] ^= 0x10;
}

fn length(path: &Path) -> Result<usize> {
    Ok(fs::read(path).with_context(|| format!("read {}", path.display()))?.len())
}

/// The newest file of a log.
fn newest(folder: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let logs = files.filter(|path| path.extension().is_some_and(|ending| ending == "wal"));
    logs.max().context("the log has no file")
}

/// Changes a file, calls `meanwhile`, and restores the file.
fn changed(
    path: &Path,
    change: impl FnOnce(&mut Vec<u8>),
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let whole = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let mut bytes = whole.clone();
    change(&mut bytes);
    ensure!(bytes != whole, "{} is as it was", path.display());
    fs::write(path, bytes)?;
    meanwhile()?;
    fs::write(path, whole)?;
    Ok(())
}
