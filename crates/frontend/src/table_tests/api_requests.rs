//! Valid requests to every route, some of them unusual; and valid ones that the API rejects.

use super::{Shape, bare, raw, shape};

pub(super) fn shapes() -> Vec<Shape> {
    [routes(), refused(), headers(), unread(), forms()].concat()
}

fn get(target: &str, status: u16) -> Shape {
    shape(&format!("GET {target}"), "", "", status)
}

fn ask(line: &str, status: u16) -> Shape {
    shape(line, "", "", status)
}

fn routes() -> Vec<Shape> {
    vec![
        get("/stocks/Bear", 200),
        get("/stocks/Bear/", 200),
        get("/stocks/B%65ar", 200),
        get("/stocks/Bear?x=y", 200),
        get("/products/Bear", 200),
        get("/stocks", 200),
        get("/products/", 200),
        get("/stocks?limit=1&after=Ape", 200),
        get("/stocks?", 200),
        get("/livez", 200),
        get("/readyz", 200),
        get("/status/cache", 200),
        get("http://shop/stocks/Bear", 200),
        get("HTTP://shop:80/livez", 200),
        ask("HEAD /stocks/Bear", 200),
        ask("HEAD /livez", 200),
        ask("HEAD /stocks/Novum", 404),
        ask("OPTIONS /stocks", 204),
        ask("OPTIONS /stocks/Bear", 204),
        ask("OPTIONS /orders", 204),
        ask("OPTIONS /v1/orders/batch", 204),
        ask("OPTIONS /", 204),
        ask("OPTIONS *", 204),
        ask("OPTIONS http://shop", 204),
    ]
}

fn refused() -> Vec<Shape> {
    vec![
        get("/stocks/Novum", 404),
        get("/stocks/Caf\u{e9}", 404),
        get("/stocks/%ff", 404),
        get("/stocks/a/b", 404),
        get("//stocks", 404),
        get("/", 404),
        get("/nothing", 404),
        get("/orders/0", 404),
        get("/orders/x", 404),
        get("/stocks?limit=0", 400),
        get("/stocks?limit=x", 400),
        get("/stocks?after=%zz", 400),
        get("/orders", 405),
        ask("HEAD /orders", 405),
        ask("DELETE /stocks/Bear", 405),
        ask("PUT /stocks/Bear", 405),
        ask("PATCH /orders", 405),
        ask("TRACE /livez", 405),
        ask("POST /stocks", 405),
        ask("BREW /livez", 501),
        ask("get /livez", 501),
        ask("M-SEARCH /livez", 501),
    ]
}

fn headers() -> Vec<Shape> {
    let with = |headers: &[u8]| shape("GET /livez", headers, "", 200);
    vec![
        with(b"X-Empty:\r\n"),
        with(b"X-Tab:\ta\tb\t\r\n"),
        with(b"X-Latin-1: caf\xe9\r\n"),
        with(b"X-Many: 1\r\nX-Many: 2\r\nx-many: 3\r\n"),
        with(b"!#$%&'*+-.^_`|~: every mark that a name may have\r\n"),
        with(b"X-Request-Id: the client's own\r\n"),
        with(b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        with(b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
        with(b"Range: bytes=0-1\r\nIf-None-Match: *\r\nCookie: a=b\r\n"),
        with(b"Expect:\r\n"),
        with(b"Expect: 100-Continue\r\n"),
        with(&b"X: y\r\n".repeat(90)),
        bare("GET /livez", "hOST: shop\r\n", 200),
        bare("GET /livez", "Host:shop\r\n", 200),
        bare("GET /livez", "Host: shop.example:8080\r\n", 200),
        bare("GET /livez", "Host: [::1]:80\r\n", 200),
        bare("GET /livez", "Host:\r\n", 200),
    ]
}

/// Bodies that no route reads: a body that arrived whole is dropped, and the connection stays open.
fn unread() -> Vec<Shape> {
    let length = "Content-Length: 2\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let chunks = "2\r\n{}\r\n0\r\n\r\n";
    vec![
        shape("GET /livez", "Content-Length: 0\r\n", "", 200),
        shape("GET /livez", length, "{}", 200),
        shape(
            "GET /livez",
            "Content-Length: 4000\r\n",
            "GET /orders\n".repeat(400).split_at(4_000).0,
            200,
        ),
        shape("HEAD /livez", length, "{}", 200),
        shape("OPTIONS /orders", length, "{}", 204),
        shape("DELETE /stocks/Bear", length, "{}", 405),
        shape("POST /nothing", length, "{}", 404),
        shape("GET /livez", chunked, chunks, 200).closing().in_http_10(400, true),
        shape("POST /nothing", chunked, chunks, 404).closing().in_http_10(400, true),
    ]
}

/// Forms of one version only.
fn forms() -> Vec<Shape> {
    vec![
        raw("\r\nGET /livez HTTP/1.1\r\nHost: shop\r\n\r\n", 200),
        raw("\r\n\r\n\n\r\nGET /livez HTTP/1.1\r\nHost: shop\r\n\r\n", 200),
        raw("GET /livez HTTP/1.1\nHost: shop\n\n", 200),
        raw("GET /livez HTTP/1.1\nHost: shop\r\nX: y\n\r\n", 200),
        raw("GET /livez HTTP/1.1\r\nHost: shop\r\nConnection: x, Close\r\n\r\n", 200).closing(),
        raw("GET /livez HTTP/1.0\r\n\r\n", 200).closing(),
        raw("GET /livez HTTP/1.0\r\nHost: shop\r\nConnection: keep-alive\r\n\r\n", 200),
    ]
}
