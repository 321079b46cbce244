//! `docs/deploy.md`, Gateways: nginx and haproxy before two frontends, with the page's own text.

use anyhow::{Result, ensure};

use crate::manual::process::Process;
use crate::manual::sandbox::Host;
use crate::manual::stage::Stage;

/// A customer behind the gateway, who sends each request once; any answer but 200 is a failure.
const CUSTOMER: &str = "
    while [ ! -e /tmp/closed ]; do
        curl --fail http://127.0.0.1:8080/stocks/GameStart
        curl --fail --json '{\"name\":\"GameStart\",\"quantity\":1,\"type\":\"sell\"}' \\
            http://127.0.0.1:8080/orders
    done";

/// nginx detects a closed port, and tries the next frontend.
pub(crate) fn nginx(stage: &Stage<'_>) -> Result<()> {
    let host = stage.host("nginx")?;
    stage.book.says("deploy.md", "nginx, as `/etc/nginx/conf.d/oppidum.conf`")?;
    let text = &stage.deploy("Gateways", 2)?.text;
    std::fs::write(host.path("/etc/nginx/conf.d/oppidum.conf"), text)?;
    behind(stage, &host, "exec nginx -g 'daemon off;'")
}

/// haproxy asks `/readyz`.
pub(crate) fn haproxy(stage: &Stage<'_>) -> Result<()> {
    let host = stage.host("haproxy")?;
    let text = &stage.deploy("Gateways", 3)?.text;
    std::fs::write(host.path("/srv/haproxy.cfg"), text)?;
    behind(stage, &host, "exec haproxy -db -f haproxy.cfg")
}

/// Stops and restarts one frontend after the other; no request behind the gateway may fail.
fn behind(stage: &Stage<'_>, host: &Host, gateway: &str) -> Result<()> {
    let up = host.start("up", "exec oppidum up --port 1300")?;
    up.until("The store is open")?;
    // The gateway on this machine has one of its addresses.
    let settings = stage.deploy("Gateways", 1)?.with(&[("10.0.0.5,10.0.0.6", "127.0.0.1")])?;
    let frontend = |port: u16| -> Result<Process> {
        let script = format!(
            "set -a; {settings} set +a
             exec oppidum frontend --tls oppidum-data/tls --port {port} --internal 127.0.0.1:{}",
            port + 6_000
        );
        let frontend = host.start("frontend", &script)?;
        frontend.until("gateways: 127.0.0.1")?;
        let ready = format!("curl --fail http://127.0.0.1:{port}/readyz");
        host.until("the frontend is ready", &ready, |printed| printed.code == 0)?;
        Ok(frontend)
    };
    let mut serving = vec![frontend(1234)?, frontend(1235)?];
    let gateway = host.start("gateway", gateway)?;
    let ask = "curl --fail http://127.0.0.1:8080/stocks/GameStart";
    host.until("the gateway passes requests on", ask, |printed| printed.code == 0)?;
    let mut customer = host.start("customer", CUSTOMER)?;
    for port in [1234, 1235] {
        let mut stopping = serving.remove(0);
        stopping.signal("TERM")?;
        stopping.until("not ready any more: answering for 10s, then closing")?;
        let code = stopping.end()?;
        ensure!(code == 0, "the frontend ended with exit code {code}");
        serving.push(frontend(port)?);
    }
    host.ok("touch /tmp/closed")?;
    let code = customer.end()?;
    ensure!(code == 0, "a customer behind the gateway was let down: {}", customer.printed()?);
    gateway.signal("TERM")?;
    up.stop()
}
