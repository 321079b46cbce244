//! Answers arrive, and answers that a client does not read do not accumulate.

use std::time::Duration;

use super::*;
use crate::http::send_timer::SendTimer;
use crate::limits;
use crate::table_tests::store::certified;

/// For each kind of request that hyper reads: a query, and an order that is not plain.
#[tokio::test]
async fn an_answer_leaves_regardless_of_bytes_behind_its_request() {
    let odd = ORDER.replace("Host: shop", "Host: shop\r\nTE: trailers");
    let bad = "GET / HTTP/1.1\r\n: no name\r\n\r\n";
    for (request, answer) in [(QUERY, SHOWN), (odd.as_str(), INSIDE)] {
        for tail in ["\r\n", &QUERY[..9], bad, &ORDER[..40]] {
            let Visit { mut customer, .. } = visit().await;
            let bytes = [request, tail].concat();
            assert_eq!(customer.send(&bytes, 1).await, [answer], "before {tail:?}");
        }
    }
}

/// A client that sends as many requests as the system buffers, each of which gets a long answer.
async fn send_and_take_nothing(request: &str, body: usize) -> (Visit, usize) {
    let visit = arrive(Some(4_096)).await;
    visit.shop.0.body.store(body, Ordering::Relaxed);
    let requests = request.repeat(20_000);
    let sent = visit.customer.0.try_write(requests.as_bytes()).unwrap();
    (visit, sent)
}

#[tokio::test]
async fn a_client_that_reads_no_answers_is_not_read_from() {
    let odd = ORDER.replace("Host: shop", "Host: shop\r\nTE: trailers");
    for request in [QUERY, odd.as_str(), ORDER] {
        let (visit, sent) = send_and_take_nothing(request, 64 * 1024).await;
        let mut visit = visit.begin();
        let asked = sent / request.len();
        assert!(200 < asked, "the system takes {asked} requests");
        let answered = || visit.shop.0.answered.load(Ordering::Relaxed);
        // Until the number of answers stops growing.
        let mut before = usize::MAX;
        while before != answered() {
            before = answered();
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
        }
        // The system buffers little here, so these answers are held by the frontend: at most 256
        // KB.
        let held = before * 64 * 1024;
        assert!((1..=256 * 1024).contains(&held), "{before} of {asked} answers");
        let first = visit.customer.hear().await;
        assert!(first.starts_with("200 "), "{first}");
        for _ in 1..before + 20 {
            assert_eq!(visit.customer.hear().await, first, "in order, and none is lost");
        }
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_for_too_long_is_disconnected() {
    let (soon, body) = (|| SendTimer::new(Duration::from_millis(20)), 64 * 1024);
    for fast in [true, false] {
        let (visit, _) = send_and_take_nothing(if fast { ORDER } else { QUERY }, body).await;
        let Visit { shop, customer, stop, stream: Some((stream, from)), .. } = visit else {
            panic!("the connection is not served yet")
        };
        let client = client(from, &stop);
        if fast {
            let mut fast_path = FastPath::new(MaybeTlsStream::Plain(stream), Vec::new());
            fast_path.sending = soon();
            let left = fast_path.serve(&shop, &client).await;
            assert!(matches!(left, FastPathEnd::Ended));
        } else {
            let mut tracked = TrackedStream::new(MaybeTlsStream::Plain(stream), Vec::new(), IDLE);
            tracked.sending = soon();
            let left = serve_with_hyper(tracked, false, &shop, &client).await;
            assert!(matches!(left, ServedByHyper::Ended));
        }
        drop(customer);
    }
}

#[tokio::test]
async fn a_last_answer_arrives_while_its_client_continues_to_send() {
    let last = ORDER.replace("Host: shop", "Host: shop\r\nConnection: close");
    let odd = last.replace("Host: shop", "Host: shop\r\nTE: trailers");
    let bad = QUERY.replace("Host: shop", "Host: sh op");
    for request in [last.as_str(), odd.as_str(), bad.as_str()] {
        let Visit { mut customer, served, .. } = visit().await;
        customer.0.write_all(request.as_bytes()).await.unwrap();
        // To a closed socket this write is an error, and it destroys the answer.
        for _ in 0..100 {
            customer.0.write_all(&[b'x'; 1_000]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut told = String::new();
        customer.0.read_to_string(&mut told).await.unwrap();
        assert!(told.starts_with("HTTP/1.1 ") && told.contains("connection: close"), "{told}");
        assert!(!served.is_finished(), "its client has not closed yet");
        drop(customer);
        served.await.unwrap();
    }
}

#[tokio::test]
async fn a_malformed_request_gets_an_answer_before_the_connection_closes() {
    let many = "X: y\r\n".repeat(limits::HEADERS_MAX + 1);
    for (head, status) in [
        (": no name\r\n", "400"),
        (" folded\r\n", "400"),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "400"),
        (many.as_str(), "431"),
    ] {
        let Visit { mut customer, served, .. } = visit().await;
        let bytes = format!("GET / HTTP/1.1\r\nHost: shop\r\n{head}\r\n");
        let told = customer.send(&bytes, 1).await;
        assert!(told[0].starts_with(status), "{head:?}: {told:?}");
        drop(customer);
        served.await.unwrap();
    }
}

/// Kind: an answer that counts as sent while its encrypted bytes are still in the process.
#[tokio::test]
async fn with_tls_an_answer_that_is_read_late_arrives_whole_after_a_stop() {
    let Visit { shop, customer, stop, stream, .. } = arrive(Some(4 * 1024)).await;
    shop.0.body.store(16 * 1024, Ordering::Relaxed);
    let (stream, from) = stream.expect("the connection is not served yet");
    let (acceptor, trust) = certified();
    let (served, until) = (shop.clone(), stop.clone());
    let serving = tokio::spawn(async move {
        let stream = wire::tls::stream::accept(acceptor, stream).await.unwrap();
        serve(stream, client(from, &until), served).await;
    });
    let mut customer = trust.connect("localhost", customer.0).await.unwrap();
    customer.write_all(ORDER.as_bytes()).await.unwrap();
    customer.flush().await.unwrap();
    while shop.0.answered.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    // The answer is written as far as the system's buffers reach.
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let mut answer = Vec::new();
    // The connection may end without a notice.
    let _ = customer.read_to_end(&mut answer).await;
    assert!(16 * 1024 < answer.len(), "{} bytes arrived", answer.len());
    serving.await.unwrap();
}
