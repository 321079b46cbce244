//! Decided answers: what a replica tells about decided requests, and which index that reveals.

use ledger::codec::bulk;
use ledger::outcome::Outcome;
use ledger::terms::Index;
use tokio::sync::oneshot;
use wire::convert;
use wire::proto::{self, answer::What};
use wire::stream::Reply;

use crate::acknowledger::Reveals;
use crate::batcher::AwaitingReply;
use crate::problems;

/// The answer to decided requests, before its index is settled.
#[derive(Debug)]
pub(crate) struct DecidedAnswer {
    pub(super) reveals: Reveals,
    pub(super) index: Index,
    /// The number of requests that it answers.
    pub(super) requests: usize,
    pub(super) what: What,
}

impl DecidedAnswer {
    /// The answer to a lone request, decided at `index`. `None`: there is no outcome.
    pub(crate) fn lone(index: Index, outcomes: &[Outcome]) -> Option<Self> {
        let outcome = outcomes.first()?;
        let (reveals, index) = match outcome {
            Outcome::Accepted(_) => (Reveals::Acceptance, index),
            Outcome::Refused(_) => (Reveals::Refusal, index),
            Outcome::Repeated { index, .. } => (Reveals::Repetition, *index),
        };
        Some(Self { reveals, index, requests: 1, what: What::Outcome(convert::outcome(outcome)) })
    }

    /// The answer to a bulk, decided at `index`: the earlier indexes that it reveals are settled
    /// when this one is. `None`: there is no outcome.
    pub(crate) fn bulk(index: Index, outcomes: &[Outcome]) -> Option<Self> {
        let requests = outcomes.len();
        if requests == 0 {
            return None;
        }
        let outcomes = bulk::write_outcomes(outcomes).into();
        let what = What::Outcomes(proto::Outcomes { outcomes });
        Some(Self { reveals: Reveals::Acceptance, index, requests, what })
    }
}

/// An answer that waits until its index is settled.
pub(super) enum Held {
    Answer(Reply, proto::Answer, AwaitingReply),
    Read(oneshot::Sender<()>),
}

impl Held {
    /// Sends the answer.
    pub(super) fn give(self) {
        match self {
            Self::Answer(reply, answer, awaiting) => {
                reply.send(answer);
                drop(awaiting);
            }
            // A read that has gone away needs no answer.
            Self::Read(reply) => drop(reply.send(())),
        }
    }

    /// Decided, but this replica must not answer: the client asks the new leader, with its key.
    pub(super) fn give_up(self) {
        match self {
            Self::Answer(reply, ..) => reply.problem(&problems::lost()),
            Self::Read(reply) => drop(reply),
        }
    }
}
