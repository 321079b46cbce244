//! Cross-origin protection of the internal listener: rejects every request that a web page could
//! make a browser send.
//!
//! Internal listeners may be without TLS, and a browser on the operator's machine reaches them. A
//! browser speaks HTTP/1.1 to them, names the page's origin, and under DNS rebinding names a host
//! of the attacker's. So a call must be gRPC over HTTP/2, no request may come from a page, and the
//! host in each request must be a name of this process.
//!
//! The clients of this crate name [`AUTHORITY`] as the host: the address is dialed already, and the
//! called process may not know the name by which it was dialed.

use std::net::IpAddr;
use std::sync::LazyLock;

use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderName, Method, StatusCode, Version};

/// The host in requests between processes of a store.
pub const AUTHORITY: &str = "localhost";

/// Names the source of a browser's request (W3C, Fetch Metadata Request Headers).
static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The name of this machine. A service may not see `/proc/sys`, so the kernel is asked.
static MACHINE: LazyLock<String> =
    LazyLock::new(|| rustix::system::uname().nodename().to_string_lossy().into_owned());

/// The status and the reason of a rejection, for the client.
pub(crate) type CrossOriginRejection = (StatusCode, &'static str);

/// Decides by its head whether a request is accepted. `is_ours`: true for a name of this process.
pub(crate) fn judge(
    head: &Parts,
    is_ours: impl Fn(&str) -> bool,
) -> Result<(), CrossOriginRejection> {
    let is_read = head.method == Method::GET || head.method == Method::HEAD;
    // A browser sends `none` when the operator types the address of a page.
    let is_typed = head.headers.get(&SEC_FETCH_SITE).is_none_or(|site| site == "none" && is_read);
    if head.headers.contains_key(ORIGIN) || !is_typed {
        return Err((StatusCode::FORBIDDEN, "requests of web pages are rejected\n"));
    }
    if !host(head)?.is_none_or(|host| is_harmless(host) || is_ours(host)) {
        let why = "this process does not have that host name: use its address\n";
        return Err((StatusCode::FORBIDDEN, why));
    }
    // The path of a gRPC call has a dot, the path of a page has none.
    if is_read && !head.uri.path().contains('.') {
        return Ok(());
    }
    if head.version != Version::HTTP_2 {
        return Err((StatusCode::HTTP_VERSION_NOT_SUPPORTED, "calls must use HTTP/2\n"));
    }
    if head.method == Method::POST && is_grpc(head) {
        Ok(())
    } else {
        Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "calls must be gRPC\n"))
    }
}

/// The host that the request names, without its port. None: the client speaks HTTP/1.0 without
/// `Host`, so it is no browser.
fn host(head: &Parts) -> Result<Option<&str>, CrossOriginRejection> {
    let bad = (StatusCode::BAD_REQUEST, "a request must name exactly one host\n");
    let mut named = head.headers.get_all(HOST).iter();
    let header = match (named.next(), named.next()) {
        (_, Some(_)) => return Err(bad),
        (Some(host), None) => Some(host.to_str().map_err(|_| bad)?),
        (None, None) => None,
    };
    match (head.uri.authority().map(http::uri::Authority::as_str), header) {
        (Some(authority), Some(header)) if !authority.eq_ignore_ascii_case(header) => Err(bad),
        (Some(host), _) | (None, Some(host)) => Ok(Some(name_of(host))),
        (None, None) if head.version == Version::HTTP_11 => Err(bad),
        (None, None) => Ok(None),
    }
}

/// The host of `host:port`, of `[host]:port`, or of a host alone.
pub fn name_of(address: &str) -> &str {
    match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => address.rsplit_once(':').map_or(address, |(host, _)| host),
    }
}

/// True for an IP address, `localhost` and the machine's name: an attacker cannot point these names
/// at this process.
fn is_harmless(host: &str) -> bool {
    let is_machine = !MACHINE.is_empty() && host.eq_ignore_ascii_case(&MACHINE);
    host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case(AUTHORITY) || is_machine
}

fn is_grpc(head: &Parts) -> bool {
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    // `application/grpc-web` is excluded, because it is made for browsers.
    kind.is_some_and(|kind| kind == "application/grpc" || kind.starts_with("application/grpc+"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(line: (&str, &str, Version), headers: &[(&str, &str)]) -> Parts {
        let (method, uri, version) = line;
        let mut request = http::Request::builder().method(method).uri(uri).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn status(line: (&str, &str, Version), headers: &[(&str, &str)]) -> u16 {
        let judged = judge(&head(line, headers), |name| name == "order-1");
        judged.err().map_or(200, |(status, _)| status.as_u16())
    }

    const CALL: &str = "/oppidum.v1.Store/Calls";
    const H1: Version = Version::HTTP_11;
    const H2: Version = Version::HTTP_2;
    const GRPC: (&str, &str) = ("content-type", "application/grpc");

    /// Guards against every call that a web page can make a browser send.
    #[test]
    fn only_grpc_calls_over_http2_are_accepted() {
        let at = |host: &str| format!("http://{host}{CALL}");
        for host in ["127.0.0.1:1117", "[::1]:1117", "localhost:1117", "order-1:1117", "ORDER-1"] {
            let expected = if host == "ORDER-1" { 403 } else { 200 };
            assert_eq!(status(("POST", &at(host), H2), &[GRPC]), expected, "{host}");
        }
        let local = at("127.0.0.1:1117");
        let call = |kind: &str| status(("POST", &local, H2), &[("content-type", kind)]);
        assert_eq!(call("application/grpc+proto"), 200);
        assert_eq!(call("application/grpc; charset=x"), 200);
        for kind in ["application/grpc-web", "application/grpcx", "text/plain", ""] {
            assert_eq!(call(kind), 415, "{kind}");
        }
        assert_eq!(status(("POST", &local, H2), &[]), 415);
        assert_eq!(status(("GET", &local, H2), &[GRPC]), 415);
        let host = ("host", "127.0.0.1:1117");
        assert_eq!(status(("POST", CALL, H1), &[host, GRPC]), 505);
        assert_eq!(status(("POST", CALL, Version::HTTP_10), &[GRPC]), 505);
        assert_eq!(status(("GET", CALL, H1), &[host]), 505);
        assert_eq!(status(("POST", "/status", H1), &[host]), 505, "pages take no POST");
    }

    #[test]
    fn requests_of_web_pages_are_rejected() {
        let host = ("host", "127.0.0.1:1117");
        for headers in [
            &[host, ("origin", "http://evil.example")][..],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://127.0.0.1:1117")],
            &[host, ("sec-fetch-site", "cross-site")],
            &[host, ("sec-fetch-site", "same-origin")],
            &[host, ("sec-fetch-site", "none"), ("origin", "http://evil.example")],
            &[("host", "evil.example")],
            &[("host", "evil.example:1117")],
            &[("host", "127.0.0.1.evil.example")],
            &[("host", "localhost.evil.example:1117")],
        ] {
            assert_eq!(status(("GET", "/status", H1), headers), 403, "{headers:?}");
            let grpc = [headers, &[GRPC]].concat();
            assert_eq!(status(("POST", CALL, H2), &grpc), 403, "{headers:?}");
        }
        let evil = format!("http://evil.example{CALL}");
        assert_eq!(status(("POST", &evil, H2), &[GRPC]), 403);
        let typed = ("sec-fetch-site", "none");
        assert_eq!(status(("POST", CALL, H2), &[host, GRPC, typed]), 403);
    }

    #[test]
    fn operators_and_their_tools_may_read_the_pages() {
        for headers in [
            &[("host", "127.0.0.1:1117")][..],
            &[("host", "[::1]:1117")],
            &[("host", "localhost")],
            &[("host", "order-1:1117")],
            &[("host", "10.0.0.7:1117"), ("sec-fetch-site", "none")],
        ] {
            for page in ["/status", "/livez", "/readyz", "/metrics", "/nothing"] {
                assert_eq!(status(("GET", page, H1), headers), 200, "{page} {headers:?}");
            }
        }
        assert_eq!(status(("GET", "/readyz", Version::HTTP_10), &[]), 200, "an HTTP/1.0 probe");
        assert_eq!(status(("GET", "/readyz", H1), &[]), 400);
        let twice = [("host", "127.0.0.1:1117"), ("host", "evil.example")];
        assert_eq!(status(("GET", "/status", H1), &twice), 400);
    }
}
