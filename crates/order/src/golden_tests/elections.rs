//! Elections and failover, in golden scripts.
//!
//! | command | effect |
//! |---|---|
//! | `elected ID after=MS ID=state …` | prints what a freshly elected replica does |
//! | `lost LEADER me=ID log=TERM/INDEX [silent] ID=state …` | prints what a survivor does |
//!
//! A state is a quoted list of `up`, `refused` or `unknown`; `+9`, entries behind, and `lost`, a
//! moment ago, after an election; `log:TERM/INDEX` and `agrees`, its report of a lost leader; and
//! `learner`.

use std::collections::BTreeMap;
use std::time::Duration;

use goldenscript::Command;

use super::Failure;
use crate::liveness::failover::{Loss, Verdict};
use crate::log_end::Position;
use crate::peers::PeerView;
use crate::role::{self, Choice, Reach, VoterView};

/// What a freshly elected replica does.
pub(super) fn choose(command: &Command) -> Result<String, Failure> {
    let mut args = command.consume_args();
    let me: u64 = args.next_pos().ok_or("which replica is elected?")?.parse()?;
    let after = Duration::from_millis(args.take_key("after").unwrap_or("0").parse()?);
    let mut views = Vec::new();
    while let Some((id, state)) = args.next_key() {
        let mut voter =
            VoterView { id: id.parse()?, reach: Reach::Unknown, lag: None, lost: false };
        for word in state.split(' ') {
            match word {
                "lost" => voter.lost = true,
                _ if word.starts_with('+') => voter.lag = Some(word[1..].parse()?),
                _ => voter.reach = reach(word)?,
            }
        }
        views.push(voter);
    }
    args.reject_next()?;
    Ok(match role::choose(me, &views, after) {
        Choice::Lead => format!("{me} leads\n"),
        Choice::Wait => format!("{me} waits\n"),
        Choice::HandOver(to) => format!("{me} hands over to {to}\n"),
    })
}

/// What a survivor does about a lost leader.
pub(super) fn judge(command: &Command) -> Result<String, Failure> {
    let mut args = command.consume_args();
    let leader: u64 = args.next_pos().ok_or("which leader is lost?")?.parse()?;
    let proven = args.next_pos() != Some("silent");
    let me: u64 = args.take_key("me").ok_or("me= is missing")?.parse()?;
    let last_log = log(args.take_key("log").ok_or("log= is missing")?)?;
    let mut peers = BTreeMap::new();
    while let Some((id, state)) = args.next_key() {
        let mut peer = PeerView { was_up: true, ..PeerView::default() };
        for word in state.split(' ') {
            match word {
                "agrees" => peer.knows_dead = Some(leader),
                "learner" => peer.learner = true,
                _ if word.starts_with("log:") => peer.last_log = log(&word[4..])?,
                _ => peer.reach = reach(word)?,
            }
        }
        peers.insert(id.parse()?, peer);
    }
    args.reject_next()?;
    let loss = Loss { leader, proven };
    Ok(match loss.judge(me, last_log, &peers) {
        Verdict::Leave => "left to the election timeouts\n".into(),
        Verdict::Hear => format!("{me} waits for reports\n"),
        Verdict::Stand => format!("{me} stands\n"),
        Verdict::Yield(to) => format!("{me} lets {to} stand\n"),
    })
}

fn reach(word: &str) -> Result<Reach, Failure> {
    match word {
        "up" => Ok(Reach::Up),
        "refused" => Ok(Reach::Refused),
        "unknown" => Ok(Reach::Unknown),
        other => Err(format!("unknown state {other}").into()),
    }
}

fn log(text: &str) -> Result<Position, Failure> {
    let (term, index) = text.split_once('/').ok_or("expected TERM/INDEX")?;
    Ok(Some((term.parse()?, 0, index.parse()?)))
}
