//! Both loops against a server whose answers a test prescribes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::closed::{Closed, Done, until_stopped};
use super::crowd::Crowd;
use super::open::Open;
use super::script::{Expect, Script};

/// Serves each connection in a thread; `answer` gives the answer to the `serial`th request of all.
/// Returns the address.
fn serve(answer: impl Fn(u64) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("a port").to_string();
    let (answer, serial) = (Arc::new(answer), Arc::new(AtomicU64::new(0)));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (answer, serial) = (answer.clone(), serial.clone());
            thread::spawn(move || converse(stream, &*answer, &serial));
        }
    });
    address
}

/// Reads requests and answers them until the client disconnects.
fn converse(mut stream: TcpStream, answer: &dyn Fn(u64) -> String, serial: &AtomicU64) {
    let mut requests = BufReader::new(stream.try_clone().expect("a socket has two ends"));
    let (mut line, mut length) = (String::new(), 0);
    while requests.read_line(&mut line).is_ok_and(|count| 0 < count) {
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().expect("the length is a number");
        }
        if line == "\r\n" {
            let mut body = vec![0; std::mem::take(&mut length)];
            if requests.read_exact(&mut body).is_err() {
                return;
            }
            let text = answer(serial.fetch_add(1, Ordering::Relaxed));
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
        line.clear();
    }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn closed<'a>(address: &'a str, script: &'a Script, expect: Expect) -> Closed<'a> {
    let (warm_up, length) = (Duration::from_millis(50), Duration::from_millis(150));
    Closed { address, script, expect, clients: 4, warm_up, length }
}

#[test]
fn a_closed_loop_counts_every_answer_and_leaves_nothing_unsold() {
    let served = Arc::new(AtomicU64::new(0));
    let counter = served.clone();
    let address = serve(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        answer("200 OK", "{}")
    });
    let script = Script::hot(&address, "GameStart");
    let counted = closed(&address, &script, Expect::Done).run(|| Ok(())).expect("the load runs");
    assert_eq!(counted.whole, served.load(Ordering::Relaxed));
    assert!(0 < counted.count && counted.count < counted.whole);
    assert_eq!(counted.whole % 2, 0, "each client sold what it had bought");
}

#[test]
fn a_long_answer_is_read_whole() {
    let address = serve(|_| answer("200 OK", &"x".repeat(300_000)));
    let host = address.clone();
    let script = Script::Batches { host, product: "GameStart".into(), size: 1_000, run: 1 };
    let counted = closed(&address, &script, Expect::Done).run(|| Ok(())).expect("the load runs");
    assert_eq!(counted.whole % 1_000, 0);
}

#[test]
fn an_unexpected_answer_ends_the_run_and_is_shown() {
    let address = serve(|serial| match serial {
        0..8 => answer("200 OK", "{}"),
        _ => answer("500 Oh", "what a pity"),
    });
    let script = Script::query(&address, "GameStart");
    let error = closed(&address, &script, Expect::Done).run(|| Ok(())).expect_err("the load fails");
    assert!(error.to_string().contains("500: what a pity"), "{error}");
}

#[test]
fn a_load_ends_when_it_is_stopped() {
    let address = serve(|_| answer("200 OK", "{}"));
    let (script, stop) = (Script::hot(&address, "GameStart"), AtomicBool::new(false));
    let mut heard = 0;
    let done = until_stopped((&address, &script, Expect::Done), 3, &stop, |_| {
        heard += 1;
        stop.store(10 <= heard, Ordering::Relaxed);
    });
    assert_eq!(done.expect("the load ends"), Done { good: heard, ..Done::default() });
    assert!(10 <= heard);
}

/// The only client is held up for 300 ms. Every request due meanwhile waited as well, though it had
/// not been sent: a loop that counts from the sending would see one slow request.
#[test]
fn an_open_loop_charges_a_pause_with_every_request_due_in_it() {
    let address = serve(|serial| {
        if serial == 0 {
            thread::sleep(Duration::from_millis(300));
        }
        answer("200 OK", "{}")
    });
    let script = Script::query(&address, "GameStart");
    let open = Open {
        address: &address,
        script: &script,
        expect: Expect::Done,
        rate: 100.0,
        clients: 1,
        clients_max: 1,
        warm_up: Duration::ZERO,
        length: Duration::from_millis(300),
    };
    let arrived = open.run(|| Ok(())).expect("the load runs");
    assert_eq!((arrived.due, arrived.accepted, arrived.shed), (30, 30, 0));
    assert_eq!(arrived.whole, 30);
    // Half of the requests were due in the first half of the pause, and waited for the other half.
    assert!(140.0 < arrived.latency.p50, "{:?}", arrived.latency);
}

#[test]
fn shed_requests_are_counted_apart_and_clients_are_added_when_none_is_free() {
    let waiting = Arc::new(AtomicBool::new(true));
    let busy = waiting.clone();
    let address = serve(move |serial| {
        let began = Instant::now();
        // The first answer waits for the second request, which another client must send.
        while serial == 0 && busy.load(Ordering::Relaxed) {
            assert!(began.elapsed() < Duration::from_secs(10), "no other client came");
            thread::yield_now();
        }
        busy.store(false, Ordering::Relaxed);
        match serial % 2 {
            0 => answer("200 OK", "{}"),
            _ => answer("503 Service Unavailable\r\nRetry-After: 1", "{}"),
        }
    });
    let script = Script::query(&address, "GameStart");
    let open = Open {
        address: &address,
        script: &script,
        expect: Expect::DoneOrNot,
        rate: 200.0,
        clients: 1,
        clients_max: 20,
        warm_up: Duration::ZERO,
        length: Duration::from_millis(200),
    };
    let arrived = open.run(|| Ok(())).expect("the load runs");
    assert_eq!((arrived.due, arrived.accepted, arrived.shed), (40, 20, 20));
    assert!(2 <= arrived.clients && arrived.clients <= 20, "{arrived:?}");
}

#[test]
fn a_client_whose_idle_connection_was_closed_connects_again() {
    let served = Arc::new(AtomicU64::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("a port").to_string();
    let counter = served.clone();
    thread::spawn(move || {
        // The server closes each connection after one request.
        for mut stream in listener.incoming().map_while(Result::ok) {
            counter.fetch_add(1, Ordering::Relaxed);
            let mut requests = BufReader::new(stream.try_clone().expect("a socket has two ends"));
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if requests.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
            }
            let _ = stream.write_all(answer("200 OK", "{}").as_bytes());
        }
    });
    let script = Script::query(&address, "GameStart");
    let mut crowd = Crowd::new(&address, &script, Expect::Done).expect("there is epoll");
    let client = crowd.join().expect("the client connects");
    let mut said = Vec::new();
    for turn in 1..=3 {
        let began = Instant::now();
        crowd.send(client, began).expect("the request is sent");
        while said.len() < turn || crowd.is_connected(client) {
            crowd.hear(Duration::from_millis(10), &mut said).expect("no answer is wrong");
            assert!(began.elapsed() < Duration::from_secs(10), "the closing is never seen");
        }
    }
    assert_eq!(served.load(Ordering::Relaxed), 3);
}
