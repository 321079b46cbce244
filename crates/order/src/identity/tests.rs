//! Which replicas are admitted, and what a data folder remembers of them.

use std::fs;

use super::*;
use crate::config::tests::three;
use crate::membership::Membership;

fn settings(folder: &Path) -> Settings {
    Settings { data: folder.to_path_buf(), ..three() }
}

fn open(settings: &Settings) -> Result<Identity, Stop> {
    Identity::open(settings, Members::new(settings))
}

fn caller(id: u64, incarnation: u128) -> proto::Sender {
    proto::Sender {
        id,
        cluster: "test".into(),
        incarnation: format!("{incarnation:032x}"),
        ledger_id: String::new(),
        to: 456,
        start: 1,
        to_incarnation: String::new(),
    }
}

#[test]
fn a_folder_keeps_its_replica_and_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&settings(folder.path())).unwrap().sender(123);
    let again = open(&settings(folder.path())).unwrap().sender(123);
    assert_eq!(first.incarnation, again.incarnation);
    assert_ne!(first.start, again.start);
    let other_id = Settings { id: 345, ..settings(folder.path()) };
    let other_store = Settings { cluster: "another".into(), ..settings(folder.path()) };
    for strange in [other_id, other_store] {
        let Err(Stop::Setup(line)) = open(&strange) else { panic!("taken") };
        assert!(line.contains("belongs to") && !line.contains('\n'), "{line}");
    }
}

#[test]
fn a_folder_in_use_or_with_other_files_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let held = open(&settings(folder.path())).unwrap();
    let Err(Stop::Setup(line)) = open(&settings(folder.path())) else { panic!() };
    assert!(line.contains("in use"), "{line}");
    drop(held);
    let strange = tempfile::tempdir().unwrap();
    fs::write(strange.path().join("letters.txt"), "dear").unwrap();
    let Err(Stop::Setup(line)) = open(&settings(strange.path())) else { panic!() };
    assert!(line.contains("letters.txt"), "{line}");
}

#[test]
fn a_damaged_identity_is_refused_and_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&settings(folder.path())).unwrap());
    fs::write(folder.path().join(IDENTITY_FILE), "version = ").unwrap();
    assert!(matches!(open(&settings(folder.path())), Err(Stop::Setup(_))));
}

#[test]
fn every_flipped_bit_and_every_lost_end_of_an_identity_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let identity = open(&settings(folder.path())).unwrap();
    identity.meet(Some(&caller(123, 7))).unwrap();
    identity.hold_ledger(LedgerId([1; 16])).unwrap();
    drop(identity);
    let path = folder.path().join(IDENTITY_FILE);
    let whole = fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let Err(Stop::Setup(line)) = open(&settings(folder.path())) else {
            panic!("taken: {}", String::from_utf8_lossy(bytes));
        };
        assert!(line.contains(IDENTITY_FILE), "{line}");
    };
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        refused(&bytes);
        refused(&whole[..place]);
    }
    fs::write(&path, &whole).unwrap();
    assert!(open(&settings(folder.path())).is_ok());
    let (_, old) = std::str::from_utf8(&whole).unwrap().split_once('\n').unwrap();
    fs::write(&path, old).unwrap();
    assert!(open(&settings(folder.path())).is_ok(), "written before checksums");
}

#[test]
fn an_emptied_folder_does_not_come_back_under_its_old_id() {
    let folder = tempfile::tempdir().unwrap();
    let identity = open(&settings(folder.path())).unwrap();
    assert_eq!(identity.meet(Some(&caller(123, 7))), Ok(123));
    assert_eq!(identity.admit(Some(&caller(123, 7))), Ok(123));
    drop(identity);
    let identity = open(&settings(folder.path())).unwrap();
    let refused = identity.admit(Some(&caller(123, 8)));
    assert_eq!(refused, Err(HandshakeError::OtherIncarnation { id: 123 }));
    assert_eq!(identity.admit(Some(&caller(123, 7))), Ok(123));
}

/// Danger: a process names the store and its ledger, which are no secrets, and is no member.
#[test]
fn only_a_member_is_admitted_or_a_replica_that_knows_this_incarnation() {
    let folder = tempfile::tempdir().unwrap();
    let identity = open(&settings(folder.path())).unwrap();
    identity.hold_ledger(LedgerId([1; 16])).unwrap();
    let ledger_id = LedgerId([1; 16]).to_string();
    let own = identity.sender(123).incarnation;
    let unknown = proto::Sender { ledger_id: ledger_id.clone(), ..caller(567, 7) };
    assert_eq!(identity.admit(Some(&unknown)), Err(HandshakeError::Unknown(567)));
    let added = proto::Sender { to_incarnation: own, ..unknown };
    assert_eq!(identity.admit(Some(&added)), Ok(567));
    let guesses = proto::Sender { to_incarnation: format!("{:032x}", 9), ..added };
    assert_eq!(identity.admit(Some(&guesses)), Err(HandshakeError::Unknown(567)));
    // A replica that waits to be added knows no members, and accepts the calls of any store.
    let folder = tempfile::tempdir().unwrap();
    let joins = Settings { join: true, ..settings(folder.path()) };
    let joining = open(&joins).unwrap();
    let unknown = proto::Sender { ledger_id, ..caller(567, 7) };
    assert_eq!(joining.admit(Some(&unknown)), Ok(567));
    assert_eq!(
        joining.admit(Some(&caller(678, 7))),
        Err(HandshakeError::Unknown(678)),
        "no ledger"
    );
}

#[test]
fn a_caller_gives_way_to_the_replica_that_answers_at_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let identity = open(&settings(folder.path())).unwrap();
    assert_eq!(identity.admit(Some(&caller(123, 6))), Ok(123));
    assert!(identity.known().is_empty(), "nothing is persisted of a call");
    assert_eq!(identity.admit(Some(&caller(123, 7))), Err(HandshakeError::NotMetYet(123)));
    assert_eq!(identity.meet(Some(&caller(123, 7))), Ok(123));
    assert_eq!(identity.admit(Some(&caller(123, 7))), Ok(123));
    let refused = identity.admit(Some(&caller(123, 6)));
    assert_eq!(refused, Err(HandshakeError::OtherIncarnation { id: 123 }));
}

/// Danger: a peer's words that are persisted without a bound.
#[test]
fn data_folders_learned_from_peers_are_kept_for_members_alone_and_within_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let identity = open(&settings(folder.path())).unwrap();
    let known_ids = |ids: std::ops::Range<u64>| -> Vec<proto::Known> {
        ids.map(|id| proto::Known { id, incarnation: format!("{id:032x}"), met: None }).collect()
    };
    identity.learn(123, &known_ids(300..350));
    assert!(identity.known().is_empty(), "123 was not met");
    identity.meet(Some(&caller(123, 7))).unwrap();
    let size = || fs::metadata(folder.path().join(IDENTITY_FILE)).unwrap().len();
    let before = size();
    identity.learn(123, &known_ids(1_000..31_000));
    identity.learn(123, &known_ids(300..30_300));
    identity.learn(123, &known_ids(1_000..1_050));
    assert_eq!((identity.known().len(), size()), (1, before));
    identity.learn(123, &known_ids(300..350));
    let ids: Vec<u64> = identity.known().iter().map(|known| known.id).collect();
    assert_eq!(ids, [123, 345], "members alone");
    // A replica that waits to be added does not know the members yet.
    let folder = tempfile::tempdir().unwrap();
    let joining = open(&Settings { join: true, ..settings(folder.path()) }).unwrap();
    joining.meet(Some(&caller(123, 7))).unwrap();
    for at in 0..40 {
        joining.learn(123, &known_ids(1_000 + at * 10..1_010 + at * 10));
    }
    assert_eq!(joining.known().len(), KNOWN_MAX);
}

#[test]
fn each_refused_handshake_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let identity = open(&settings(folder.path())).unwrap();
    identity.hold_ledger(LedgerId([1; 16])).unwrap();
    let ours = LedgerId([1; 16]).to_string();
    let theirs = LedgerId([2; 16]).to_string();
    let other_store = proto::Sender { cluster: "x".into(), ..caller(123, 7) };
    let other_target = proto::Sender { to: 345, ..caller(123, 7) };
    let other_ledger = proto::Sender { ledger_id: theirs.clone(), ..caller(123, 7) };
    let same_ledger = proto::Sender { ledger_id: ours.clone(), ..caller(123, 7) };
    let not_hex = proto::Sender { incarnation: "me".into(), ..caller(123, 7) };
    assert_eq!(
        identity.admit(Some(&other_store)),
        Err(HandshakeError::OtherCluster { id: 123, theirs: "x".into(), ours: "test".into() })
    );
    assert_eq!(
        identity.admit(Some(&other_target)),
        Err(HandshakeError::NotMe { wanted: 345, id: 456 })
    );
    assert_eq!(identity.admit(Some(&caller(7, 7))), Err(HandshakeError::Unknown(7)));
    assert_eq!(identity.admit(Some(&caller(456, 7))), Err(HandshakeError::Unknown(456)));
    assert_eq!(identity.admit(Some(&not_hex)), Err(HandshakeError::OtherIncarnation { id: 123 }));
    assert_eq!(identity.admit(None), Err(HandshakeError::Nameless));
    assert_eq!(
        identity.admit(Some(&other_ledger)),
        Err(HandshakeError::OtherLedger { id: 123, theirs, ours })
    );
    assert_eq!(identity.admit(Some(&same_ledger)), Ok(123));
}

/// Replica `id` on a folder of its own.
fn replica(folder: &Path, id: u64) -> Identity {
    let identity = open(&Settings { id, ..settings(folder) }).unwrap();
    identity.hold_ledger(LedgerId([1; 16])).unwrap();
    identity
}

/// Danger: a process calls as a replica that was never met, and reads the answer.
#[test]
fn an_answer_shows_a_caller_nothing_with_which_it_could_act_as_a_replica() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (replica(one.path(), 123), replica(other.path(), 456));
    first.meet(Some(&second.answer(123))).unwrap();
    second.meet(Some(&first.answer(456))).unwrap();
    assert_eq!(first.admit(Some(&second.sender(123))), Ok(456));
    assert_eq!(second.admit(Some(&first.sender(456))), Ok(123));
    let unknown = caller(345, 9);
    assert_eq!(second.admit(Some(&unknown)), Ok(345), "it was never met");
    assert!(!second.is_proven(&unknown) && second.is_proven(&first.sender(456)));
    let (answer, known) = (second.answer(345), second.known_fingerprints());
    let forged = proto::Sender { to: 123, ..answer.clone() };
    assert_eq!(first.admit(Some(&forged)), Err(HandshakeError::OtherIncarnation { id: 456 }));
    let forged = proto::Sender { id: 123, incarnation: known[0].incarnation.clone(), ..forged };
    let forged = proto::Sender { to: 456, ..forged };
    assert_eq!(second.admit(Some(&forged)), Err(HandshakeError::OtherIncarnation { id: 123 }));
    // Nor can it call as a replica that was added meanwhile.
    let added = proto::Sender { id: 999, to_incarnation: answer.incarnation, ..forged };
    let added = proto::Sender { incarnation: format!("{:032x}", 9), ..added };
    assert_eq!(second.admit(Some(&added)), Err(HandshakeError::Unknown(999)));
    // A member passes the incarnation on to a replica that it dials.
    let learned = second.known().into_iter().find(|known| known.id == 123).unwrap();
    assert_eq!(learned.incarnation, first.sender(456).incarnation);
    let added = proto::Sender { to_incarnation: second.sender(123).incarnation, ..added };
    assert_eq!(second.admit(Some(&added)), Ok(999));
    assert!(second.is_proven(&added));
}

#[test]
fn a_folder_that_holds_incarnations_knows_their_fingerprints() {
    let folder = tempfile::tempdir().unwrap();
    let identity = open(&settings(folder.path())).unwrap();
    identity.meet(Some(&caller(123, 7))).unwrap();
    let answer = |number| {
        let sender = caller(123, number);
        proto::Sender { incarnation: fingerprint(&sender.incarnation), ..sender }
    };
    assert_eq!(identity.meet(Some(&answer(7))), Ok(123));
    let refused = identity.meet(Some(&answer(8)));
    assert_eq!(refused, Err(HandshakeError::OtherIncarnation { id: 123 }));
    assert_eq!(identity.admit(Some(&caller(123, 7))), Ok(123));
    let report =
        |number: u128| proto::Known { id: 345, incarnation: format!("{number:032x}"), met: None };
    let print = proto::Known { incarnation: fingerprint(&report(5).incarnation), ..report(5) };
    for (known, kept) in [(print.clone(), &print), (report(6), &print), (report(5), &report(5))] {
        identity.learn(123, &[known]);
        assert!(identity.known().contains(kept), "{kept:?}");
    }
}

/// Danger: the leader was added by an entry that the joining replica does not have yet.
#[test]
fn a_replica_that_is_being_added_takes_calls_of_a_leader_that_its_log_does_not_name_yet() {
    let folder = tempfile::tempdir().unwrap();
    let joining = open(&Settings { join: true, ..settings(folder.path()) }).unwrap();
    joining.hold_ledger(LedgerId([1; 16])).unwrap();
    let ledger_id = LedgerId([1; 16]).to_string();
    let leader = proto::Sender { ledger_id: ledger_id.clone(), ..caller(567, 7) };
    let members = |ids: &[u64]| {
        let addresses = ids.iter().map(|id| (*id, format!("host:{id}"))).collect();
        let configs = vec![ids.iter().copied().collect()];
        joining.members().set(Membership {
            begun: true,
            at: (1, ids.len() as u64),
            configs,
            addresses,
        });
    };
    members(&[123, 345]);
    assert_eq!(joining.admit(Some(&leader)), Ok(567));
    assert!(joining.is_proven(&leader), "its log does not name itself either");
    members(&[123, 345, 456, 567]);
    assert!(!joining.is_proven(&leader), "it must be met from now on");
    let unknown = proto::Sender { ledger_id, ..caller(678, 7) };
    assert_eq!(joining.admit(Some(&unknown)), Err(HandshakeError::Unknown(678)));
}
