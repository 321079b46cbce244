//! What a store says of itself: the status of its replicas, `verify`, and the lines of its log.

use serde_json::Value;
use wire::tls::subject::Holder;

use super::{Connection, Reply, Store, until};

impl Store {
    /// The status of each reachable replica.
    pub(crate) fn replicas(&self) -> Vec<Value> {
        let running = self.orders.iter().filter(|(_, _, process)| process.is_some());
        let statuses = running.filter_map(|(id, port, _)| {
            let page = match &self.lock {
                Some(lock) => lock.page(Holder::Replica(*id), *port, "/status"),
                None => {
                    Some(Connection::open(*port).ok()?.ask("GET", "/status", &[], "").ok()?.body)
                }
            };
            serde_json::from_str(&page?).ok()
        });
        statuses.collect()
    }

    /// Waits until all running replicas agree on the leader; None: on any leader.
    pub(crate) fn await_leader(&self, expected: Option<u64>) -> u64 {
        until(&format!("{expected:?} leads"), || {
            let replicas = self.replicas();
            let leader = replicas.first()?["leader"].as_u64()?;
            let agreed = replicas.iter().all(|status| status["leader"].as_u64() == Some(leader));
            let there = replicas.iter().any(|status| status["id"].as_u64() == Some(leader));
            let wanted = expected.is_none_or(|expected| expected == leader);
            (agreed && there && wanted).then_some(leader)
        })
    }

    /// Waits until all replicas are ready, and none lacks what another had applied just before.
    pub(crate) fn await_all_ready(&self) {
        until("all replicas have applied the same", || self.are_all_ready().then_some(()));
    }

    /// True when all replicas are ready, and none lacks what another had applied just before. While
    /// orders go on, the replicas are never seen at one index: they are asked one after the other.
    pub(crate) fn are_all_ready(&self) -> bool {
        let applied = |status: &Value| status["applied_index"].as_u64();
        let Some(before) = self.replicas().iter().filter_map(applied).max() else { return false };
        let replicas = self.replicas();
        let is_level = |status: &Value| {
            status["ready"] == true && applied(status).is_some_and(|own| before <= own)
        };
        replicas.len() == self.orders.len() && replicas.iter().all(is_level)
    }

    /// Repeats a GET until the public port answers with this status; other statuses are ignored.
    pub(crate) fn await_status(&self, path: &str, status: u16) -> Reply {
        until(&format!("{path} answers {status}"), || {
            let reply = Connection::open(self.port()).ok()?.ask("GET", path, &[], "").ok()?;
            (reply.status == status).then_some(reply)
        })
    }

    /// `oppidum verify`, which must find nothing wrong. [P1, P2, P3, P8]
    pub(crate) fn verify(&self) {
        self.await_all_ready();
        let ended = self.run(&["verify"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("identical"), "{ended:?}");
        self.no_process_reports_a_defect();
    }

    /// Asserts that no process has logged a defect.
    pub(crate) fn no_process_reports_a_defect(&self) {
        let orders = self.orders.iter().filter_map(|(_, _, process)| process.as_ref());
        let catalogs = self.catalogs.iter().filter_map(|(_, process)| process.as_ref());
        let frontends = self.frontends.iter().filter_map(|(_, _, process)| process.as_ref());
        for process in orders.chain(catalogs).chain(frontends) {
            for line in process.stderr().lines() {
                let excused = self.excused.iter().any(|words| line.contains(words));
                let bad = line.contains(" ERROR ") || line.contains("panicked");
                let bad = bad && !excused;
                assert!(!bad, "a process reports a defect: {line}");
            }
        }
    }
}
