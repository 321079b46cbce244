//! Orders and batches: those that are placed, and those that are rejected.

use super::{Shape, raw, shape};

pub(super) const BODY: &str = r#"{"name":"Bear","quantity":1,"type":"buy"}"#;

/// An order that the fast path reads.
pub(super) const ORDER: &str = "POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 41\r\n\r\n\
    {\"name\":\"Bear\",\"quantity\":1,\"type\":\"buy\"}";

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

pub(super) fn shapes() -> Vec<Shape> {
    [placed(), in_chunks(), refused(), not_read(), ambiguous(), malformed_chunks(), batches()]
        .concat()
}

/// An order with these headers beside its length.
fn order(headers: &str, body: &str, status: u16) -> Shape {
    let headers = format!("{headers}Content-Length: {}\r\n", body.len());
    shape("POST /orders", headers, body, status)
}

fn sound(headers: &str) -> Shape {
    order(headers, BODY, 200).placing(1)
}

fn chunks(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

fn placed() -> Vec<Shape> {
    let length = format!("Content-Length: {}\r\n", BODY.len());
    let padded = format!("{BODY}{}", " ".repeat(5_000));
    vec![
        sound(""),
        sound("Content-Type: application/json\r\n"),
        sound("Content-Type: Application/JSON; charset=utf-8\r\n"),
        sound("Content-Type: application/vnd.shop+json\r\n"),
        sound("Content-Type:\r\n"),
        sound("Idempotency-Key: 7\r\n"),
        sound("Idempotency-Key: \"7\"\r\n"),
        sound("X-Request-Id: 7\r\nUser-Agent: curl/8\r\nAccept: */*\r\n"),
        sound("Expect: 100-continue\r\n"),
        sound("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        sound(&length),
        order("", r#"{"name":"Bear","quantity":"2","type":"sell","more":[1]}"#, 200).placing(1),
        order("", &padded, 200).placing(1),
        shape("POST /orders", "CONTENT-length:  0041 \r\n", BODY, 200).placing(1),
        shape("POST /orders/", &length, BODY, 200).placing(1),
        shape("POST /orders?x=y", &length, BODY, 200).placing(1),
        shape("POST http://shop/orders", &length, BODY, 200).placing(1),
        raw(format!("\r\n{ORDER}"), 200).placing(1),
        raw(ORDER.replace("\r\n", "\n"), 200).placing(1),
    ]
}

/// HTTP/1.0 has no chunks.
fn in_chunks() -> Vec<Shape> {
    let pieces: Vec<_> = BODY.chars().map(|piece| format!("1\r\n{piece}\r\n")).collect();
    let odd = format!("0029;a=b;c=\"d\"\r\n{BODY}\r\n00\r\nX-Trailer: 1\r\nY:\r\n\r\n");
    let sound = |body: &str, headers: &str| {
        shape("POST /orders", headers, body, 200).placing(1).in_http_10(400, true)
    };
    vec![
        sound(&chunks(BODY), CHUNKED),
        sound(&chunks(BODY), "transfer-encoding: CHUNKED\r\n"),
        sound(&format!("{}0\r\n\r\n", pieces.concat()), CHUNKED),
        sound(&odd, CHUNKED),
        sound(&chunks(BODY), "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"),
        shape("POST /orders", CHUNKED, chunks("{}"), 400).in_http_10(400, true),
        shape("POST /orders", CHUNKED, "0\r\n\r\n", 400).in_http_10(400, true),
    ]
}

fn refused() -> Vec<Shape> {
    vec![
        shape("POST /orders", "", "", 400),
        order("", "", 400),
        order("", "{}", 400),
        order("", "not json", 400),
        order("", &BODY[1..], 400),
        order("", "{\"name\":\"Bear\",\"quantity\":0,\"type\":\"buy\"}", 400),
        order("", "{\"name\":\"Bear\",\"quantity\":1.5,\"type\":\"buy\"}", 400),
        order("", "{\"name\":\"Bear\",\"name\":\"Bear\",\"quantity\":1,\"type\":\"buy\"}", 400),
        order("Idempotency-Key:\r\n", BODY, 400),
        order("Idempotency-Key: a b\r\n", BODY, 400),
        order("Idempotency-Key: 1\r\nIdempotency-Key: 1\r\n", BODY, 400),
        order("Content-Type: text/plain\r\n", BODY, 415),
        order("Content-Type: application/x-www-form-urlencoded\r\n", BODY, 415),
        order("Content-Type: application/json, text/plain\r\n", BODY, 415),
    ]
}

/// Requests whose bodies are not read, or not to their end.
fn not_read() -> Vec<Shape> {
    let long = format!("{BODY}{}", " ".repeat(16_384));
    let kind = "Content-Type: text/plain\r\n";
    let in_chunks = format!("{kind}{CHUNKED}");
    vec![
        order("", &long, 413).closing(),
        shape("POST /orders", "Content-Length: 20000\r\n", BODY, 413).closing(),
        shape("POST /orders", "Content-Length: 9223372036854775807\r\n", BODY, 413).closing(),
        shape("POST /orders", "Content-Length: 18446744073709551615\r\n", BODY, 413).closing(),
        shape("POST /orders", CHUNKED, chunks(&long), 413).closing().in_http_10(400, true),
        shape("POST /orders", format!("{kind}Content-Length: 9000\r\n"), BODY, 415).closing(),
        shape("POST /orders", in_chunks, chunks(BODY), 415).closing().in_http_10(400, true),
        order("Expect: a miracle\r\n", BODY, 417).closing(),
        order("Expect: 100-continue, a miracle\r\n", BODY, 417).closing(),
    ]
}

/// Two parsers may disagree about where such a body ends.
fn ambiguous() -> Vec<Shape> {
    let at = |headers: &str| shape("POST /orders", headers, BODY, 400).closing();
    let beside = format!("Content-Length: 41\r\n{CHUNKED}");
    let behind = format!("{CHUNKED}Content-Length: 41\r\n");
    let coded = |headers: &str, status| {
        let shape = shape("POST /orders", headers, chunks(BODY), status);
        shape.closing().in_http_10(400, true)
    };
    vec![
        at("Content-Length: 41\r\nContent-Length: 42\r\n"),
        at("Content-Length: 0\r\nContent-Length: 41\r\n"),
        at("Content-Length: 41\r\nX: y\r\ncontent-length: 4\r\n"),
        at("Content-Length: 41, 42\r\n"),
        at("Content-Length: 41, 41\r\n"),
        at("Content-Length: +41\r\n"),
        at("Content-Length: -1\r\n"),
        at("Content-Length: 0x29\r\n"),
        at("Content-Length: 4 1\r\n"),
        at("Content-Length: forty-one\r\n"),
        at("Content-Length:\r\n"),
        at("Content-Length : 41\r\n"),
        at("Content-Length: 41\r\n folded\r\n"),
        coded(&beside, 400),
        coded(&behind, 400),
        coded("Transfer-Encoding: gzip, chunked\r\n", 501),
        coded("Transfer-Encoding: chunked, chunked\r\n", 501),
        coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 501),
        coded("Transfer-Encoding: chunked, gzip\r\n", 400),
        coded("Transfer-Encoding: identity\r\n", 400),
        coded("Transfer-Encoding: \x0bchunked\r\n", 400),
        coded("Transfer-Encoding:\r\n", 400),
    ]
}

fn malformed_chunks() -> Vec<Shape> {
    let at = |body: &str| shape("POST /orders", CHUNKED, body, 400).closing();
    vec![
        at("x\r\n"),
        at("-1\r\n\r\n"),
        at("0x29\r\n"),
        at(&format!("29\n{BODY}\n0\n\n")),
        at(&format!("28\r\n{BODY}\r\n0\r\n\r\n")),
        at(&format!("29\r\n{BODY}0\r\n\r\n")),
        at(&format!("29\r\n{BODY}\r\n0\r\n\n")),
        at(&format!("29;\x01\r\n{BODY}\r\n0\r\n\r\n")),
        at(&format!("1ffffffffffffffff\r\n{BODY}\r\n0\r\n\r\n")),
    ]
}

fn batches() -> Vec<Shape> {
    let two = format!("{{\"orders\":[{BODY},{BODY}]}}");
    let batch = |headers: &str, body: &str, status| {
        let headers = format!("{headers}Content-Length: {}\r\n", body.len());
        shape("POST /v1/orders/batch", headers, body, status)
    };
    let in_chunks = shape("POST /v1/orders/batch", CHUNKED, chunks(&two), 200);
    vec![
        batch("", &two, 200).placing(2),
        batch("Content-Type: application/json\r\n", &two, 200).placing(2),
        in_chunks.placing(2).in_http_10(400, true),
        batch("", "{\"orders\":[]}", 400),
        batch("", "{\"orders\":7}", 400),
        batch("", &two[1..], 400),
        batch("Idempotency-Key: 7\r\n", &two, 400),
        batch("Content-Type: text/csv\r\n", &two, 415),
        shape("POST /v1/orders/batch", "Content-Length: 2000000\r\n", &two, 413).closing(),
        shape("PUT /v1/orders/batch", "Content-Length: 2\r\n", "{}", 405),
    ]
}
