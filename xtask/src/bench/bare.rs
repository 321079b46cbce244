//! The bare handler: the least that an HTTP server can do with an order: parse, count, answer.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize)]
struct Order {
    name: String,
    quantity: u64,
    #[serde(rename = "type")]
    side: String,
}

#[derive(Debug, Deserialize)]
struct Batch {
    orders: Vec<Keyed>,
}

#[derive(Debug, Deserialize)]
struct Keyed {
    name: String,
    quantity: u64,
    #[serde(rename = "type")]
    side: String,
    key: String,
}

#[derive(Debug, Serialize)]
struct AllPlaced {
    data: Vec<Number>,
}

#[derive(Debug, Serialize)]
struct Placed {
    data: Number,
}

#[derive(Debug, Serialize)]
struct Number {
    transaction_number: u64,
}

/// Serves on a free port of loopback, which is printed, until the process is killed or its stdin
/// closes. So the handler does not outlive the process that started it.
pub(crate) fn serve() -> Result<()> {
    std::thread::spawn(|| {
        // The result does not matter: the parent is gone.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().context("take a socket")?;
        socket.bind(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).context("bind")?;
        // As long as the accept queue of a frontend.
        let listener = socket.listen(4_096).context("listen")?;
        println!("http://{}", listener.local_addr().context("ask for the port")?);
        std::io::stdout().flush().context("say where")?;
        let router = Router::new()
            .route("/readyz", get(async || "ready\n"))
            .route("/orders", post(place))
            .route("/v1/orders/batch", post(place_all))
            .route("/stocks/{name}", get(shown))
            .with_state(Arc::new(AtomicU64::new(0)));
        axum::serve(listener, router).await.context("serve")
    })
}

/// The bytes of a store's answer to a query that hits its cache.
async fn shown() -> impl IntoResponse {
    let headers = [
        ("content-type", "application/json"),
        ("x-as-of", "1234567"),
        ("cache-status", "oppidum; hit"),
        ("x-request-id", "0123456789abcdef"),
    ];
    (headers, r#"{"data":{"name":"GameStart","price":15.99,"quantity":100}}"#)
}

async fn place(State(next): State<Arc<AtomicU64>>, Json(order): Json<Order>) -> Json<Placed> {
    Json(Placed { data: number(&next, &order) })
}

async fn place_all(
    State(next): State<Arc<AtomicU64>>,
    Json(batch): Json<Batch>,
) -> Json<AllPlaced> {
    let place = |keyed: Keyed| {
        let Keyed { name, quantity, side, key } = keyed;
        assert!(!key.is_empty(), "every order of a batch has a key");
        number(&next, &Order { name, quantity, side })
    };
    Json(AllPlaced { data: batch.orders.into_iter().map(place).collect() })
}

fn number(next: &AtomicU64, order: &Order) -> Number {
    // All parsed fields are used, so that the compiler cannot leave out any parsing.
    let asked = u64::from(!order.name.is_empty() && !order.side.is_empty() && 0 < order.quantity);
    Number { transaction_number: next.fetch_add(asked, Ordering::Relaxed) }
}
