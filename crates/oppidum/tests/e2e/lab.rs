//! The lab's experiments, small ones: their output, their files, and their cleanup.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Plan, Process, Store, children, is_frozen, run, runs, until};

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// A row of sweep.csv: n, and the mean if there were samples.
type Rows = BTreeMap<(String, String, String), (u64, Option<f64>)>;

fn rows(csv: &str) -> Rows {
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("cache,p,kind,n,mean_ms,p50_ms,p95_ms,p99_ms"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells.len(), 8, "{line}");
        let key = (cells[0].to_owned(), cells[1].to_owned(), cells[2].to_owned());
        (key, (cells[3].parse().unwrap(), cells[4].parse().ok()))
    };
    lines.map(row).collect()
}

/// An attribute of an element on one line of SVG.
fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_once(&format!(" {name}=\""))?.1.split('"').next()
}

fn number(line: &str, name: &str) -> Option<f64> {
    attribute(line, name)?.parse().ok()
}

/// The round values along the axes of one small plot: value and position in pixels.
#[derive(Default)]
struct Axes {
    x: Vec<(f64, f64)>,
    y: Vec<(f64, f64)>,
}

/// The position of a value, from the outermost values that the axis shows.
fn place(axis: &[(f64, f64)], value: f64) -> f64 {
    let ((low, from), (high, to)) = (axis[0], axis[axis.len() - 1]);
    from + (value - low) / (high - low) * (to - from)
}

/// The small plot that a point belongs to: two columns, rows of 264 pixels below a heading.
fn cell(x: f64, y: f64) -> (bool, i64) {
    #[expect(clippy::cast_possible_truncation, reason = "a few hundred pixels")]
    let row = ((y - 60.0) / 264.0).floor() as i64;
    (x < 400.0, row)
}

/// Compares every point of the picture, read off the axes, with the table; returns the number of
/// points.
fn compare(svg: &str, rows: &Rows) -> usize {
    let mut axes: BTreeMap<(bool, i64), Axes> = BTreeMap::new();
    for line in svg.lines().filter(|line| line.starts_with("<text ")) {
        let text = line.split_once('>').unwrap().1.trim_end_matches("</text>");
        let (Ok(value), Some(x), Some(y)) =
            (text.parse::<f64>(), number(line, "x"), number(line, "y"))
        else {
            continue;
        };
        let own = axes.entry(cell(x, y)).or_default();
        match attribute(line, "text-anchor") {
            // A label is set a little below its line, so that its middle is on the line.
            Some("end") => own.y.push((value, y - 4.0)),
            _ => own.x.push((value, x)),
        }
    }
    let mut points = 0;
    for line in svg.lines().filter(|line| line.contains(" data-kind=")) {
        let of = |name| attribute(line, name).unwrap().to_owned();
        let (n, mean) = rows[&(of("data-cache"), of("data-p"), of("data-kind"))];
        assert_eq!(n.to_string(), of("data-n"), "{line}");
        let at = match attribute(line, "d") {
            None => (number(line, "cx").unwrap(), number(line, "cy").unwrap()),
            // A square is drawn from its upper left corner.
            Some(path) => {
                let corner = path[1..].split('h').next().unwrap();
                let (x, y) = corner.split_once(' ').unwrap();
                (x.parse::<f64>().unwrap() + 3.5, y.parse::<f64>().unwrap() + 3.5)
            }
        };
        let own = &axes[&cell(at.0, at.1)];
        let expected = (place(&own.x, of("data-p").parse().unwrap()), place(&own.y, mean.unwrap()));
        let off = (at.0 - expected.0).abs().max((at.1 - expected.1).abs());
        assert!(off < 0.1, "{line} should be at {expected:?}");
        points += 1;
    }
    points
}

/// [D1-24]
#[test]
fn the_sweep_measures_with_and_without_a_cache_and_its_picture_shows_its_table() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let flags = ["--clients", "3", "--requests", "12", "-p", "0,0.8", "--out", out];
    let ended = run(&[&["lab", "sweep"], &flags[..]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let rows = rows(&read(folder.path(), "sweep.csv"));
    assert_eq!(rows.len(), 2 * 2 * 5);
    let n = |cache: &str, p: &str, kind: &str| rows[&(cache.into(), p.into(), kind.into())].0;
    for p in ["0", "0.8"] {
        for cache in ["on", "off"] {
            assert_eq!(n(cache, p, "query"), 36, "each query is measured once");
        }
        assert_eq!(n("off", p, "query_hit"), 0, "there is no hit without a cache");
        assert!(0 < n("on", p, "query_hit") && 0 < n("on", p, "query_miss"), "{ended:?}");
    }
    assert_eq!(n("on", "0", "order"), 0);
    assert!(0 < n("off", "0.8", "order") && 0 < n("off", "0.8", "lookup"));
    let measured = rows.values().filter(|(n, _)| *n != 0).count();
    assert!(rows.values().all(|(n, mean)| mean.is_some() == (*n != 0)));
    assert_eq!(compare(&read(folder.path(), "sweep.svg"), &rows), measured);
    let last = ended.stdout.lines().last().unwrap();
    assert!(last.starts_with("What the cache was worth: a hit took "), "{last}");
    assert!(last.contains(" without, "), "{last}");
}

#[test]
fn the_sweep_measures_a_running_store_and_reports_when_there_is_nothing_to_measure() {
    let store = Store::start(Plan { cache: "off", ..Plan::stock() });
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let sweep = |url: &str| {
        let flags = ["--clients", "2", "--requests", "4", "-p", "0.5", "--out", out, "--url", url];
        run(&[&["lab", "sweep"], &flags[..]].concat())
    };
    let ended = sweep(&store.url());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("cannot be said of a store without one"), "{ended:?}");
    let rows = rows(&read(folder.path(), "sweep.csv"));
    assert!(rows.keys().all(|(cache, ..)| cache == "off"), "{rows:?}");
    store.verify();
    // A server that answers every request with 500.
    let broken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", broken.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in broken.incoming().flatten() {
            std::thread::spawn(move || always_500(stream));
        }
    });
    let ended = sweep(&url);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("Nothing was measured."), "{ended:?}");
    assert!(ended.stdout.contains("FAILED: ") && ended.stdout.contains("500"), "{ended:?}");
    // A port without a listener.
    assert_eq!(sweep("http://127.0.0.1:1").code, Some(2));
}

fn always_500(mut stream: std::net::TcpStream) {
    let mut bytes = [0; 4096];
    while stream.read(&mut bytes).is_ok_and(|count| 0 < count) {
        let answer = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n{}";
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

/// [D1-25]
#[test]
fn the_cache_experiment_shows_every_eviction_and_invalidation() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let flags = ["--capacity", "3", "--requests", "15", "-p", "0.5", "--pause", "5ms"];
    let ended = run(&[&["lab", "cache", "--out", out], &flags[..]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("With room for 3 of 10 products"), "{ended:?}");
    let behind: Value = serde_json::from_str(&read(folder.path(), "cache.json")).unwrap();
    let events = behind["events"].as_array().unwrap();
    let count = |what: &str| {
        let own = events.iter().filter(|event| event["event"] == what).count();
        u64::try_from(own).unwrap()
    };
    assert_eq!(behind["evicted"], count("evicted"));
    assert_eq!(behind["invalidated"], count("invalidated"));
    assert!(0 < count("evicted") && 0 < count("invalidated"), "{behind}");
    // A product refused as sold out is looked up once more, so that the cache knows it too.
    let looked_up = behind["hits"].as_u64().unwrap() + behind["misses"].as_u64().unwrap();
    assert!((75..=90).contains(&looked_up), "{behind}");
    let mut before = 0;
    for event in events {
        assert!(event["contents"].as_array().unwrap().len() <= 3, "{event}");
        let at = event["ms"].as_u64().unwrap();
        assert!(before <= at, "events are in order of time");
        before = at;
    }
    let spans = behind["cached"].as_array().unwrap();
    let kept = spans.iter().filter(|span| span["ended"] == "end").count();
    assert_eq!(kept, events.last().unwrap()["contents"].as_array().unwrap().len());
    let svg = read(folder.path(), "cache.svg");
    // The background, a bar for each span, and one in the legend.
    assert_eq!(svg.matches("<rect ").count(), spans.len() + 2);
}

/// [D1-26; P1, P2, P3, P8]
#[test]
fn the_failover_experiment_answers_in_words_and_with_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    // The time that a busy machine takes is not tested here.
    let flags = ["--repeat", "1", "--restart-after", "500ms", "--within", "60s", "--out", out];
    let ended = run(&[&["lab", "failover"], &flags[..]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for words in [
        "order-456  killed  345 after ",
        "Do clients notice?            No: of ",
        "The longest gap?              ",
        "Are all replicas identical?   Yes: digest ",
        "Are the numbers dense?        Yes: ",
        "Is the stock conserved?       Yes",
        "Is every order confirmed?     Yes: ",
    ] {
        assert!(ended.stdout.contains(words), "no {words:?} in {}", ended.stdout);
    }
    let csv = read(folder.path(), "failover.csv");
    let orders = csv.lines().filter(|line| line.contains(",order,")).count();
    let lookups = csv.lines().filter(|line| line.contains(",lookup,")).count();
    assert!(0 < lookups && lookups <= orders, "every order that was placed is looked up");
    let svg = read(folder.path(), "failover.svg");
    for words in [">456</text>", ">345 leads</text>", ">promised: at most 60000 ms"] {
        assert!(svg.contains(words), "no {words:?} in {svg}");
    }
}

/// Neither Ctrl-C nor `kill -9` leaves a process behind, not even a frozen one; Ctrl-C also removes
/// the folder.
#[test]
fn an_experiment_that_is_stopped_leaves_nothing_behind() {
    for signal in [Signal::INT, Signal::KILL] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let flags =
            ["lab", "failover", "--kill", "follower", "--freeze", "--restart-after", "600s"];
        let flags = flags.map(str::to_owned);
        let mut lab = Process::start_with("lab", folder.path(), &[("TMPDIR", path)], &flags);
        let store = until("a replica is frozen", || {
            let store = children(lab.pid());
            store.iter().any(|child| is_frozen(*child)).then_some(store)
        });
        assert_eq!(store.len(), 7, "three replicas, two catalogs, two frontends");
        lab.signal(signal);
        if signal == Signal::INT {
            assert_eq!(lab.wait(), Some(2), "{}", lab.stderr());
            let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
            let left = left.iter().filter(|e| e.file_name().to_string_lossy().starts_with("oppi"));
            // The folder for the experiment's files is there; that of the store is not.
            assert_eq!(left.count(), 1);
        } else {
            lab.kill();
        }
        for child in store {
            until("every process has ended", || (!runs(child)).then_some(()));
        }
    }
}
