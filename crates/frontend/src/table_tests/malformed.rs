//! Malformed heads, and bytes that are not HTTP: each gets an error, and the connection ends.

use super::{Shape, bare, raw, shape};

pub(super) fn shapes() -> Vec<Shape> {
    let all = [hosts(), headers(), targets(), too_much(), versions(), other_protocols()];
    all.concat().into_iter().map(Shape::closing).chain(without_host()).collect()
}

/// Requests without a `Host`, which only HTTP/1.1 requires.
fn without_host() -> Vec<Shape> {
    vec![
        bare("GET /livez", "", 400).closing().in_http_10(200, false),
        bare("GET /livez", "Hose: shop\r\n", 400).closing().in_http_10(200, false),
    ]
}

fn hosts() -> Vec<Shape> {
    let order = |headers: &str| {
        let body = super::orders::BODY;
        shape("POST /orders", format!("{headers}Content-Length: {}\r\n", body.len()), body, 400)
    };
    let host = |value: &str| bare("GET /livez", format!("Host: {value}\r\n"), 400);
    vec![
        shape("GET /livez", "Host: other\r\n", "", 400),
        shape("GET /livez", "host: shop\r\n", "", 400),
        shape("HEAD /livez", "Host: shop\r\n", "", 400),
        order("Host: other\r\n"),
        order("X: y\r\nHost: shop\r\n"),
        host("a b"),
        host("a, b"),
        host("user@shop"),
        host("http://shop/"),
        host("shop:http"),
        host("[::1"),
        host("::1"),
        host("caf\u{e9}"),
    ]
}

fn headers() -> Vec<Shape> {
    let with = |headers: &[u8]| shape("GET /livez", headers, "", 400);
    let expecting = |value: &str| shape("GET /livez", format!("Expect: {value}\r\n"), "", 417);
    vec![
        with(b"no colon\r\n"),
        with(b": no name\r\n"),
        with(b"X : y\r\n"),
        with(b"X\t: y\r\n"),
        with(b"X: 1\r\n 2\r\n"),
        with(b"X: 1\r\n\t2\r\n"),
        with(b"X: \0\r\n"),
        with(b"X\0: y\r\n"),
        with(b"X: a\rb\r\n"),
        with(b"X: a\r\rb\r\n"),
        with(b"X: \x01\r\n"),
        with(b"X: \x7f\r\n"),
        with(b"X(y): z\r\n"),
        with(b"caf\xe9: y\r\n"),
        with(b"\"X\": y\r\n"),
        with(b"GET /livez HTTP/1.1\r\n"),
        bare("GET /livez", " Host: shop\r\n", 400),
        expecting("a miracle"),
        expecting("100-continued"),
        expecting("100-continue, 100-continue"),
    ]
}

fn targets() -> Vec<Shape> {
    let ask = |line: &str, status| shape(line, "", "", status);
    let raw_target =
        |target: &[u8]| raw([b"GET ", target, b" HTTP/1.1\r\nHost: shop\r\n\r\n"].concat(), 400);
    vec![
        ask("GET *", 400),
        ask("GET livez", 400),
        ask("GET shop:80", 400),
        ask("GET ftp://shop/livez", 400),
        ask("GET http:///livez", 400),
        ask("GET ?", 400),
        ask("GET /livez#top", 400),
        ask("GET /a b", 400),
        ask("GET  /livez", 400),
        ask(" GET /livez", 400),
        ask("GET /livez ", 400),
        ask("GET\t/livez", 400),
        ask("GET", 400),
        ask("G\u{e9}T /livez", 400),
        ask("G(T /livez", 400),
        ask("CONNECT shop:80", 501),
        ask("CONNECT /livez", 501),
        raw_target(b"/stocks/caf\xe9"),
        raw_target(b"/stocks/\0"),
        raw_target(b"/stocks/\x7f"),
        raw_target(b"/stocks/<a>\x01"),
    ]
}

fn too_much() -> Vec<Shape> {
    let long = |count: usize| "a".repeat(count);
    let named = |count: usize| "X: y\r\n".repeat(count);
    vec![
        shape(&format!("GET /stocks/{}", long(2_041)), "", "", 414),
        shape(&format!("GET /stocks/{}", long(70_000)), "", "", 414),
        shape(&format!("GET /stocks?after={}", long(4_000)), "", "", 414),
        shape(&format!("{} /livez", long(33)), "", "", 400),
        shape(&long(10_000), "", "", 400),
        shape("GET /livez", named(101), "", 431),
        shape("GET /livez", named(1_000), "", 431),
        shape("GET /livez", format!("X: {}\r\n", long(16_384)), "", 431),
        shape("GET /livez", format!("X: {}\r\n", long(140_000)), "", 431),
        shape("GET /livez", format!("{}: x\r\n", long(17_000)), "", 431),
    ]
}

fn versions() -> Vec<Shape> {
    let with = |version: &str| raw(format!("GET /livez {version}\r\nHost: shop\r\n\r\n"), 400);
    vec![
        with("HTTP/1.2"),
        with("HTTP/2.0"),
        with("HTTP/0.9"),
        with("HTTP/11.1"),
        with("HTTP/1.1x"),
        with("http/1.1"),
        with("HTTP 1.1"),
        with(""),
        raw("GET /livez\r\n", 400),
        raw("GET /livez\r\n\r\n", 400),
        raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ]
}

fn other_protocols() -> Vec<Shape> {
    vec![
        raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        raw(b"\0\0\0\0", 400),
        raw("EHLO shop\r\n", 400),
        raw("SSH-2.0-OpenSSH_9.6\r\n", 400),
        raw("{\"name\":\"Bear\",\"quantity\":1,\"type\":\"buy\"}\r\n", 400),
        raw(b"\x05\x01\x00", 400),
        raw("*1\r\n$4\r\nPING\r\n", 400),
        raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 400),
        raw("\rGET /livez HTTP/1.1\r\nHost: shop\r\n\r\n", 400),
    ]
}
