//! What a store shows: every order, and every product.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::Store;

/// The answers of a store, as a file keeps them.
#[derive(PartialEq, Eq)]
pub(super) struct Answers {
    /// The ids of the replicas.
    pub(super) replicas: Vec<u64>,
    /// The number of the next order.
    pub(super) next_order_number: u64,
    /// Each path, with the status and the body of its answer.
    pages: Vec<(String, u16, String)>,
}

impl Answers {
    /// Asks a store whose replicas have these ids.
    pub(super) fn of(store: &Store, replicas: &[u64]) -> Self {
        store.await_all_ready();
        let statuses = store.replicas();
        let status = statuses.first().unwrap();
        let next_order_number = status["next_order_number"].as_u64().unwrap();
        let orders = (0..=next_order_number).map(|number| format!("/orders/{number}"));
        let mut paths = vec!["/products".to_owned()];
        let listed = store.get("/products").json();
        let products = listed["data"].as_array().unwrap();
        paths.extend(products.iter().map(|product| {
            format!("/products/{}", product["name"].as_str().unwrap().replace(' ', "%20"))
        }));
        let pages = paths.into_iter().chain(orders).map(|path| {
            let reply = store.get(&path);
            (path, reply.status, reply.body)
        });
        Self { replicas: replicas.to_vec(), next_order_number, pages: pages.collect() }
    }

    /// Asserts that a store gives these answers; shows the first that differs.
    pub(super) fn assert_given_by(&self, store: &Store) {
        let found = Self::of(store, &self.replicas);
        let differ = self.pages.iter().zip(&found.pages).find(|(old, new)| old != new);
        assert_eq!(differ, None);
        assert_eq!(found.pages.len(), self.pages.len());
        assert_eq!(found.next_order_number, self.next_order_number);
    }

    /// Writes the file: one page per line.
    pub(super) fn write(&self, path: &Path) {
        let head = json!({
            "program": env!("CARGO_PKG_VERSION"),
            "replicas": self.replicas,
            "next_order_number": self.next_order_number,
        });
        let pages = self.pages.iter().map(|(path, status, body)| json!([path, status, body]));
        let lines: Vec<String> =
            std::iter::once(head).chain(pages).map(|line| line.to_string()).collect();
        std::fs::write(path, lines.join("\n") + "\n").unwrap();
    }

    /// Reads the file.
    pub(super) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let head = lines.next().unwrap();
        let page = |line: Value| {
            let text = |place: usize| line[place].as_str().unwrap().to_owned();
            (text(0), u16::try_from(line[1].as_u64().unwrap()).unwrap(), text(2))
        };
        Self {
            replicas: serde_json::from_value(head["replicas"].clone()).unwrap(),
            next_order_number: head["next_order_number"].as_u64().unwrap(),
            pages: lines.map(page).collect(),
        }
    }
}
