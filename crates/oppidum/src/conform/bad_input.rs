//! Bad input: each documented case gets a clear error, and nothing changes.

use ::frontend::classic::Dialect;

use super::check_list::Check;
use super::examiner::{Examiner, HttpRequest, answered};
use crate::lab::pains::api::OrderSide;

/// The check that covers all cases: nothing has changed.
const UNCHANGED: &str = "bad-unchanged";

/// The check of the error envelope, for all cases.
const SHAPE: &str = "error-shape";

/// The check of the statuses, for all cases.
const STATUSES: &str = "statuses";

/// The cases that this project's store refuses by choice; another store may accept them.
const CHOICES: [&str; 3] =
    ["bad-quantity-whole-float", "bad-quantity-over-limit", "bad-content-type"];

/// Invalid quantities: a name, and the quantity as it stands in the JSON.
const QUANTITIES: [(&str, &str); 13] = [
    ("zero", "0"),
    ("negative", "-1"),
    ("whole-float", "2.0"),
    ("float", "1.5"),
    ("true", "true"),
    ("null", "null"),
    ("array", "[1]"),
    ("object", "{}"),
    ("word", "\"two\""),
    ("negative-text", "\"-1\""),
    ("nan", "NaN"),
    ("over-limit", "1000001"),
    ("huge", "99999999999999999999999999"),
];

/// One case: an id, a description, the request, and the expected status.
struct Case {
    id: String,
    description: String,
    body: String,
    kind: &'static str,
    status: u16,
}

impl Case {
    fn new(id: &str, description: &str, body: String) -> Self {
        let id = format!("bad-{id}");
        let description = description.to_owned();
        Self { id, description, body, kind: "application/json", status: 400 }
    }
}

fn cases(dialect: Dialect, name: &str) -> Vec<Case> {
    let side = match dialect {
        Dialect::Stock => ",\"type\":\"buy\"",
        Dialect::Toy => "",
    };
    let order = |quantity: &str| format!("{{\"name\":{name:?},\"quantity\":{quantity}{side}}}");
    let mut cases: Vec<Case> = QUANTITIES
        .into_iter()
        .map(|(what, quantity)| {
            let description = match what {
                "huge" => "a quantity beyond all integers is refused".to_owned(),
                _ => format!("a quantity of {quantity} is refused"),
            };
            Case::new(&format!("quantity-{what}"), &description, order(quantity))
        })
        .collect();
    let good = order("1");
    cases.extend([
        Case::new(
            "no-quantity",
            "a missing quantity is refused",
            format!("{{\"name\":{name:?}{side}}}"),
        ),
        Case::new("no-name", "a missing name is refused", format!("{{\"quantity\":1{side}}}")),
        Case::new("name-number", "a name that is a number is refused", {
            format!("{{\"name\":7,\"quantity\":1{side}}}")
        }),
        Case::new("empty", "an empty body is refused", String::new()),
        Case::new("no-json", "a body that is no JSON is refused", "not json".into()),
        Case::new("cut-off", "JSON that is cut off is refused", good[..good.len() - 1].to_owned()),
        Case::new("array", "an array is refused", format!("[{good}]")),
        Case::new("text", "a text is refused", format!("{name:?}")),
        Case::new("null", "null is refused", "null".into()),
        Case {
            status: 404,
            ..Case::new("unknown-product", "an order of an unknown product is refused", {
                format!("{{\"name\":\"no-such-product-here\",\"quantity\":1{side}}}")
            })
        },
        Case {
            kind: "text/html",
            status: 415,
            ..Case::new("content-type", "a Content-Type of text/html is refused", good)
        },
    ]);
    if dialect == Dialect::Stock {
        let typed = |side: &str| format!("{{\"name\":{name:?},\"quantity\":1,\"type\":{side}}}");
        cases.extend([
            Case::new("no-type", "a missing type is refused", {
                format!("{{\"name\":{name:?},\"quantity\":1}}")
            }),
            Case::new("type-unknown", "an unknown type is refused", typed("\"steal\"")),
            Case::new("type-number", "a type that is a number is refused", typed("1")),
        ]);
    }
    cases
}

pub(super) fn checks(dialect: Dialect) -> Vec<Check> {
    let cases = cases(dialect, "NAME");
    let mut checks: Vec<Check> =
        cases.iter().map(|case| check(&case.id, &case.description)).collect();
    checks.push(Check::new(
        UNCHANGED,
        5,
        "what was refused here has changed no stock and taken no number",
    ));
    checks.push(Check::new(
        SHAPE,
        4,
        "every error is {\"error\":{\"code\",\"message\"}}, and code is the status",
    ));
    checks.push(Check::info(STATUSES, "every error has the status that ours has"));
    checks
}

fn check(id: &str, description: &str) -> Check {
    if CHOICES.contains(&id) {
        Check::info(id, description)
    } else {
        Check::new(id, 1, description)
    }
}

pub(super) async fn examine(examiner: &mut Examiner) {
    // The number of this order tells which number must follow all the refusals.
    let before = examiner.place(OrderSide::Buy, 1).await;
    let mut refused = 0;
    let mut changed = None;
    for case in cases(examiner.dialect, &examiner.name) {
        let headers = &[("content-type", case.kind)];
        let reply = examiner.ask(HttpRequest { headers, ..HttpRequest::order(&case.body) }).await;
        let sent = match case.body.as_str() {
            "" => "an empty body",
            body => body,
        };
        let found = match &reply {
            Ok(reply) => examiner.refused(sent, reply, case.status),
            Err(why) => Err(why.clone()),
        };
        examiner.mark(&case.id, found);
        match reply {
            // An accepted bad order has cost its point already; the books go on from the stock
            // shown.
            Ok(reply) if reply.status < 400 => {
                examiner.last = examiner.number(&reply);
                examiner.rebook().await;
            }
            // Refused or not answered: the order must not have changed anything.
            reply => {
                refused += 1;
                if changed.is_none() {
                    let answer_shown = reply.map_or_else(|why| why, |reply| answered(sent, &reply));
                    let unlike = examiner.balanced().await.err();
                    changed = unlike.map(|why| format!("{answer_shown}: {why}"));
                }
            }
        }
    }
    for (id, odd) in [(SHAPE, examiner.odd_shape.clone()), (STATUSES, examiner.odd_status.clone())]
    {
        examiner.mark(id, odd.map_or_else(|| Ok("all that were seen".into()), Err));
    }
    let found = unchanged(examiner, before, refused, changed).await;
    match found {
        Some(found) => examiner.mark(UNCHANGED, found),
        None => examiner.skip(UNCHANGED, "something was taken, and was given no number"),
    }
}

/// Compares the numbers around the refusals. None: the last number is not known.
async fn unchanged(
    examiner: &mut Examiner,
    before: Result<u64, String>,
    refused: usize,
    changed: Option<String>,
) -> Option<Result<String, String>> {
    if let Some(why) = changed {
        return Some(Err(why));
    }
    if let Err(why) = before {
        return Some(Err(why));
    }
    let last = examiner.last?;
    Some(match examiner.place(OrderSide::Buy, 1).await {
        Ok(number) if number == last + 1 => {
            Ok(format!("{refused} refusals between #{last} and #{number}"))
        }
        Ok(number) => Err(format!("{refused} refusals, and #{number} came after #{last}")),
        Err(why) => Err(why),
    })
}

#[cfg(test)]
mod tests {
    use ::frontend::classic::parse_order;

    use super::*;

    /// The frontend's own parser agrees that each case with a bad body is bad.
    #[test]
    fn every_case_is_bad() {
        for dialect in [Dialect::Stock, Dialect::Toy] {
            for case in cases(dialect, "bear") {
                let read = parse_order(dialect, case.body.as_bytes());
                assert_eq!(read.is_err(), case.status == 400, "{}: {read:?}", case.id);
            }
        }
    }
}
