//! Tests of the rows of the audit trail.

use ledger::api_key::{Actor, ApiKeyDigest, ApiKeyId, Principal, RequestRate, Scopes};
use ledger::block::Block;
use ledger::certificate_actor::{ActorRole, CertificateActor};
use ledger::command::{Batch, Request, Shop};
use ledger::ledger::{Ledger, Windows};
use ledger::operator_action::ReplicaAddress;
use ledger::terms::{Cents, Index, Key, LedgerId, Name, OrderNumber, Origin};

use super::*;

fn plain(command: Command) -> Request {
    Request { key: None, deadline: None, certificate: None, command }
}

fn of(role: ActorRole, name: &str, command: Command) -> Request {
    Request { certificate: CertificateActor::new(role, name), ..plain(command) }
}

/// The request of an API key of webshop, under an idempotency key.
fn by(id: &[u8], key: &str, command: Command) -> Request {
    let actor = Actor::new(&Principal::new("webshop").unwrap(), ApiKeyId::new(id).unwrap());
    let key = Key::new(Origin::Client, key).map(|key| key.sent_by(Some(actor)));
    Request { key, ..plain(command) }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn pieces(number: u64) -> Quantity {
    Quantity::new(number).unwrap()
}

fn price(text: &str, cents: u64) -> Command {
    Command::SetPrice { name: name(text), price: Cents::new(cents).unwrap() }
}

fn buy(text: &str, number: u64) -> Command {
    Command::Place(vec![Line { name: name(text), quantity: pieces(number), side: Side::Buy }])
}

fn issue_to_webshop(id: &[u8]) -> Command {
    Command::IssueApiKey(NewApiKey {
        id: ApiKeyId::new(id).unwrap(),
        digest: ApiKeyDigest([0xab; 16]),
        principal: Principal::new("webshop").unwrap(),
        scopes: Scopes::parse("storefront").unwrap(),
        ends: Some(Timestamp(1_800_000_000_000)),
        rate: RequestRate::new(500, 1_000),
        note: "for the shop".into(),
    })
}

/// One entry of each kind, with what must not be shown among them.
fn history() -> Vec<Block> {
    let shop = Shop {
        ledger_id: LedgerId([1; 16]),
        first_order_number: OrderNumber(7),
        products: vec![Definition {
            name: name("fox"),
            price: Cents::new(1_250).unwrap(),
            stock: 2,
            restock_to: None,
        }],
    };
    let anna = |command| of(ActorRole::Operator, "anna", command);
    let act = |action| Command::OperatorAction(action);
    let address = ReplicaAddress::new("10.0.0.4:1115").unwrap();
    let id = |text: &[u8]| ApiKeyId::new(text).unwrap();
    let ends = Some(Timestamp(1_790_000_000_000));
    let owl = Definition {
        name: name("owl"),
        price: Cents::new(5).unwrap(),
        stock: 0,
        restock_to: Some(pieces(9)),
    };
    let fill = Command::RestockTo { name: name("owl"), quantity: pieces(9) };
    let both = Request {
        certificate: CertificateActor::new(ActorRole::Operator, "anna"),
        ..by(b"7f3kq2mw", "b", price("fox", 1_150))
    };
    let requests = vec![
        plain(Command::Open(shop.clone())),
        plain(Command::Open(shop)),
        plain(Command::Attach { incarnation: 3, name: name("catalog") }),
        anna(issue_to_webshop(b"7f3kq2mw")),
        anna(issue_to_webshop(b"7f3kq2mw")),
        by(b"7f3kq2mw", "a", buy("fox", 2)),
        by(b"7f3kq2mw", "a", buy("fox", 2)),
        by(b"7f3kq2mw", "c", buy("fox", 1)),
        both,
        anna(Command::Define(owl)),
        of(ActorRole::Catalog, "c-1", fill.clone()),
        plain(fill),
        plain(Command::RestockBy { name: name("wolf"), quantity: pieces(3) }),
        anna(Command::RevokeApiKey { id: id(b"7f3kq2mw"), ends }),
        anna(Command::RevokeApiKey { id: id(b"7f3kq2mw"), ends }),
        anna(Command::RevokeApiKey { id: id(b"00000000"), ends: None }),
        anna(Command::SetAnonymousScopes(Scopes::NONE)),
        anna(act(OperatorAction::AddReplica { id: 567, address })),
        plain(act(OperatorAction::Repair { id: 345 })),
    ];
    let mut ledger = Ledger::new(Windows::default());
    let at = Timestamp(1_714_170_115_000);
    let blocks = (1..).zip(requests).filter_map(|(index, request)| {
        let batch = Batch { at, settled: Index(0), requests: vec![request] };
        ledger.apply_entry(Index(index), 1, &batch).block.map(|block| block.block())
    });
    blocks.collect()
}

fn rows() -> Vec<TrailRow> {
    rows_of(&history())
}

fn rows_of(blocks: &[Block]) -> Vec<TrailRow> {
    let mut seen = SeenActions::default();
    let of = |block: &Block| TrailRow::of(&block.header, &block.records[0], &mut seen);
    blocks.iter().filter_map(of).collect()
}

#[test]
fn every_change_is_listed_once_with_its_actor_and_refusals_with_their_reason() {
    let lines: Vec<String> = rows().iter().map(TrailRow::to_line).collect();
    let mut expected = Vec::new();
    for (index, actor, action) in [
        (1, "-", "shop opened: 1 products, first order 7"),
        (
            4,
            "operator anna",
            "API key 7f3kq2mw issued for webshop: query, order, 500 per second, \
             until 2027-01-15 08:00:00",
        ),
        (
            5,
            "operator anna",
            "API key 7f3kq2mw issued for webshop: query, order, 500 per second, \
             until 2027-01-15 08:00:00 \
             (refused: an API key with this id exists already)",
        ),
        (6, "key webshop/7f3kq2mw", "order 7: buy 2 fox"),
        (8, "key webshop/7f3kq2mw", "order: buy 1 fox (refused: out of stock: fox)"),
        (
            9,
            "operator anna, key webshop/7f3kq2mw",
            "price of fox: 11.50 (refused: the API key does not allow this)",
        ),
        (10, "operator anna", "owl defined at 0.05, 0 in stock, restocked to 9"),
        (11, "catalog c-1", "owl restocked to 9"),
        (13, "-", "3 more of wolf (refused: no such product: wolf)"),
        (14, "operator anna", "API key 7f3kq2mw ends at 2026-09-21 14:13:20"),
        (15, "operator anna", "API key 7f3kq2mw ends at 2026-09-21 14:13:20 (nothing changed)"),
        (16, "operator anna", "API key 00000000 ends now (refused: no such API key)"),
        (17, "operator anna", "without an API key a request may: nothing"),
        (18, "operator anna", "member add 567 at 10.0.0.4:1115"),
        (19, "-", "repair of 345"),
    ] {
        expected.push(format!("{index:<8} 2024-04-26 22:21:55   {actor:<24}   {action}"));
    }
    assert_eq!(lines, expected);
}

#[test]
fn each_row_is_one_line_of_json_and_holds_no_digest() {
    let rows: Vec<String> = rows().iter().map(|row| row.to_json().to_string()).collect();
    for row in &rows {
        assert!(!row.contains('\n') && !row.contains("abab") && !row.contains("171, 171"), "{row}");
    }
    let row = |place: usize| serde_json::from_str::<Value>(&rows[place]).unwrap();
    let issued = row(1);
    assert_eq!(issued["index"], 4);
    assert_eq!(issued["at_ms"], 1_714_170_115_000_u64);
    assert_eq!(issued["actor"], "operator anna");
    assert_eq!((&issued["kind"], &issued["outcome"]), (&json!("issue_key"), &json!("done")));
    assert_eq!(issued["details"]["principal"], "webshop");
    assert_eq!(issued["refusal"], Value::Null);
    let refused = row(2);
    assert_eq!(refused["outcome"], "refused");
    assert_eq!(refused["refusal"], "an API key with this id exists already");
    assert_eq!(row(0)["actor"], Value::Null);
    let order = row(3);
    assert_eq!(order["details"]["number"], 7);
    assert_eq!(order["details"]["lines"][0]["product"], "fox");
}

/// Kind: an action without a row, because it repeats the idempotency key of an earlier one.
#[test]
fn an_action_that_is_asked_for_again_later_or_by_another_operator_has_a_row() {
    let act = |operator: &str, key: &str| Request {
        key: Key::new(Origin::Client, key),
        ..of(
            ActorRole::Operator,
            operator,
            Command::OperatorAction(OperatorAction::Repair { id: 1 }),
        )
    };
    let minute = 60_000;
    let mut ledger = Ledger::new(Windows::default());
    let asked = [
        (0, act("anna", "k")),
        (minute, act("anna", "k")),
        (minute + 1, act("anna", "k")),
        (minute + 1, act("ben", "k")),
        (minute + 1, act("ben", "other")),
    ];
    let blocks = (1..).zip(asked).filter_map(|(index, (after, request))| {
        let at = Timestamp(1_714_170_115_000 + after);
        let batch = Batch { at, settled: Index(0), requests: vec![request] };
        ledger.apply_entry(Index(index), 1, &batch).block.map(|block| block.block())
    });
    let blocks: Vec<Block> = blocks.collect();
    let rows = rows_of(&blocks);
    let shown = rows.iter().map(|row| (row.index, row.to_json()["outcome"].clone()));
    let shown: Vec<_> = shown.collect();
    assert_eq!(
        shown,
        [(1, json!("done")), (3, json!("again")), (4, json!("again")), (5, json!("done"))]
    );
    assert!(rows[1].to_line().ends_with("repair of 1 (asked for again)"), "{}", rows[1].to_line());
}

/// Kind: a name that turns a line around, so that it reads like another action.
#[test]
fn a_line_shows_no_character_that_changes_its_direction() {
    assert_eq!(visible("buy 1 a\u{202e}b\u{61c}\u{7}"), "buy 1 a\u{fffd}b\u{fffd}\u{fffd}");
    assert_eq!(visible("füchse 狐"), "füchse 狐");
}

/// Without a certificate it is still known that a catalog restocks.
#[test]
fn a_catalog_without_a_certificate_is_named_by_its_role() {
    let fill = Command::RestockTo { name: name("owl"), quantity: pieces(9) };
    let outcome = Outcome::Accepted(Accepted::Done);
    let record = Record { request: plain(fill), outcome };
    assert_eq!(actor(&record).as_deref(), Some("catalog"));
}

/// Kind: an operator who is shown an old history, while a newer one is reachable.
#[test]
fn the_leader_is_asked_or_else_the_replica_that_has_applied_most() {
    let replica = |id, applied| ProcessStatus {
        role: "order".into(),
        id: Some(id),
        applied_index: Some(applied),
        ..ProcessStatus::default()
    };
    let away = ProcessStatus { error: Some("no answer".into()), ..replica(3, 99) };
    let processes = vec![replica(1, 7), replica(2, 9), away.clone()];
    let led = StoreStatus { leader: Some(1), processes: processes.clone() };
    assert_eq!(best_replica(&led).and_then(|it| it.id), Some(1));
    let leaderless = StoreStatus { leader: None, processes };
    assert_eq!(best_replica(&leaderless).and_then(|it| it.id), Some(2));
    let none = StoreStatus { leader: None, processes: vec![away] };
    assert!(best_replica(&none).is_none());
}
