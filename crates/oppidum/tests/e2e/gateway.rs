//! A real gateway before the store: nginx, with the configuration from `docs/deploy.md`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::{Connection, Deployed, Plan, Store, connect_from, ports, until};

/// Where Debian and other distributions install nginx.
const PROGRAMS: [&str; 3] = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"];

const PAGE: &str = include_str!("../../../../docs/deploy.md");

/// nginx; ended when dropped.
struct Nginx {
    child: Child,
    port: u16,
}

impl Nginx {
    /// Before two frontends, by their public ports.
    fn start(program: &Path, store: &Store, frontends: [u16; 2]) -> Self {
        let [port, _] = ports();
        let text = PAGE.split("```nginx\n").nth(1).and_then(|rest| rest.split("```").next());
        let text = text.unwrap().replace("127.0.0.1:1234", &local(frontends[0]));
        let text = text.replace("127.0.0.1:1235", &local(frontends[1]));
        let text = text.replace("127.0.0.1:8080", &local(port));
        let folder = store.folder().display();
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temp = temp.map(|kind| format!("{kind}_temp_path {folder}/nginx-{kind};"));
        let whole = format!(
            "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\n\
             error_log {folder}/nginx.err;\nevents {{}}\nhttp {{\naccess_log off;\n{}\n{text}}}\n",
            temp.join("\n")
        );
        let file = store.folder().join("nginx.conf");
        std::fs::write(&file, whole).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let nginx = Self { child, port };
        until("nginx passes requests on", || {
            let reply = Connection::open(port).ok()?.ask("GET", "/livez", &[], "").ok()?;
            (reply.status == 200).then_some(())
        });
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Where nginx is. Without it the test is skipped, but never in continuous integration.
fn nginx() -> Option<PathBuf> {
    let found = PROGRAMS.map(PathBuf::from).into_iter().find(|path| path.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "nginx is missing: apt-get install nginx-light");
        eprintln!("SKIPPED: no nginx here, so docs/deploy.md is not tested (nginx-light)");
    }
    found
}

/// nginx counts a frontend that leaves a malformed request unanswered as failed. A few such
/// requests would take the store from every customer behind the gateway.
#[test]
fn malformed_requests_behind_a_gateway_cost_no_other_customer_an_answer() {
    let Some(program) = nginx() else { return };
    let store = Store::start(Plan { frontends: 2, ..Plan::stock() });
    let nginx = Nginx::start(&program, &store, [store.port_of(0), store.port_of(1)]);
    let many = "X-A: 1\r\n".repeat(101);
    let get = |target: &str, more: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    let latin = [b"GET /stocks/caf\xe9 HTTP/1.1\r\nHost: a\r\n\r\n".as_slice()].concat();
    let long = get(&format!("/stocks/{}", "a".repeat(7_000)), "");
    let malformed = [
        latin,
        get("/stocks/GameStart", &many).into_bytes(),
        long.into_bytes(),
        get("/stocks/%", "").into_bytes(),
        get("/stocks/GameStart", &format!("X-A: {}\r\n", "a".repeat(7_900)).repeat(3)).into_bytes(),
        b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\xff\xfe{".to_vec(),
        b"BREW /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_vec(),
    ];
    let mut customer = Connection::open(nginx.port).unwrap();
    let order = r#"{"name":"GameStart","quantity":1,"type":"sell"}"#;
    for round in 0..10 {
        for bytes in &malformed {
            let mut odd = Connection::over(connect_from(2, nginx.port).unwrap());
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
            let status = odd.raw(bytes).unwrap().status;
            assert!((400..502).contains(&status), "{status} in round {round} for {shown:?}");
            let reply = customer.ask("POST", "/orders", &[], order).unwrap();
            assert_eq!(reply.status, 200, "in round {round}, after {shown:?}: {reply:?}");
        }
    }
}

/// nginx names its customers, and each has limits of its own.
#[test]
fn a_greedy_customer_behind_a_gateway_costs_no_other_customer_an_answer() {
    let Some(program) = nginx() else { return };
    let store = Store::start(Plan::stock());
    let gateway = ["--gateways", "127.0.0.1", "--customer-address", "x-forwarded-for"];
    let limit = ["--requests-per-address", "1"];
    let deployed = Deployed::start(&store, &[&gateway[..], &limit].concat());
    let nginx = Nginx::start(&program, &store, [deployed.port; 2]);
    let ask = |connection: &mut Connection| {
        connection.ask("GET", "/stocks/GameStart", &[], "").unwrap().status
    };
    let mut greedy = Connection::over(connect_from(2, nginx.port).unwrap());
    let statuses: Vec<u16> = (0..40).map(|_| ask(&mut greedy)).collect();
    assert!(statuses.contains(&429) && statuses[0] == 200, "{statuses:?}");
    let mut customer = Connection::over(connect_from(3, nginx.port).unwrap());
    assert_eq!((ask(&mut customer), ask(&mut customer)), (200, 200));
    deployed.process.says("127.0.0.3 - - [");
}

/// A gateway that checks readiness notices before the port is closed.
#[test]
fn a_draining_frontend_is_not_ready_still_answers_and_closes_its_connections() {
    let store = Store::start(Plan::stock());
    let mut deployed = Deployed::start(&store, &["--drain", "60"]);
    let order = r#"{"name":"GameStart","quantity":1,"type":"sell"}"#;
    let mut customer = Connection::open(deployed.port).unwrap();
    let reply = customer.ask("POST", "/orders", &[], order).unwrap();
    assert_eq!((reply.status, reply.header("connection")), (200, None), "{reply:?}");
    deployed.process.signal(rustix::process::Signal::TERM);
    for port in [deployed.port, deployed.internal] {
        until("the frontend is not ready any more", || {
            let reply = Connection::open(port).ok()?.ask("GET", "/readyz", &[], "").ok()?;
            (reply.status == 503).then_some(())
        });
    }
    for (method, path, body) in [("POST", "/orders", order), ("GET", "/stocks/GameStart", "")] {
        let mut other = Connection::open(deployed.port).unwrap();
        let reply = other.ask(method, path, &[], body).unwrap();
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")), "{reply:?}");
    }
    let reply = customer.ask("POST", "/orders", &[], order).unwrap();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")), "{reply:?}");
    // The second signal ends the frontend at once.
    deployed.process.signal(rustix::process::Signal::TERM);
    assert_eq!(deployed.process.wait(), Some(130));
}
