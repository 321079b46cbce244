//! Limits between processes, each with its reason: a queue without a limit grows until it fails.
//!
//! Limits of the ledger's own terms (names, keys, quantities, stock) are in `ledger::terms`, limits
//! of the public API in the frontend.

use std::time::Duration;

/// The most calls that may be open on one stream; a call beyond it is rejected as `Overloaded`. A
/// frontend's own limit on requests in flight is below it.
pub const CALLS_OPEN_MAX: usize = 16_384;

/// The most calls or answers in one batch of a stream: keeps a batch far below [`RPC_BYTES_MAX`].
pub const CALLS_PER_BATCH_MAX: usize = 1_024;

/// The most orders in one bulk. One entry decides all of them, and other requests wait for it at
/// most 1 to 2 ms.
pub const BULK_ORDERS_MAX: usize = 1_000;

/// The largest single gRPC message, in bytes. A list of 100,000 products is about 8 MB; blocks and
/// log entries are at most a few hundred KB each and travel in batches of 2 MB.
pub const RPC_BYTES_MAX: usize = 32 << 20;

/// HTTP/2 flow control per stream, in bytes: the default of 64 KB throttles a busy stream.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;

/// HTTP/2 flow control per connection, in bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// The most connections to one internal listener: replicas, catalogs, frontends and their
/// operators.
pub const INTERNAL_CONNECTIONS_MAX: usize = 4_096;

/// How long a peer may take to send the head of an HTTP/1.1 request on an internal listener.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a TLS handshake may take at a listener; then the connection is closed.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it takes at most until a new certificate in the files is noticed.
pub const RENEWAL_PERIOD: Duration = Duration::from_secs(30);

/// How long a connect may take before the other process counts as silent. Loopback and LAN answer
/// in microseconds; 500 ms allow for one lost packet within the second of promise P9.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// The interval of HTTP/2 pings, and how long the answer to a ping may take: a connection that is
/// lost silently is found within 2 s.
pub const KEEPALIVE: Duration = Duration::from_secs(1);

/// The most frames that a source keeps for watchers that reconnect.
pub const WINDOW_FRAMES_MAX: usize = 4_096;

/// The most products in all frames that a source keeps: bounds its memory at about 20 MB.
pub const WINDOW_PRODUCTS_MAX: usize = 100_000;

/// The most products in one list.
pub const LIST_PRODUCTS_MAX: usize = 1_000;

/// The most watchers of one source.
pub const WATCHERS_MAX: usize = 1_000;

/// The most bytes of a `/status` page that one process reads from another.
pub const STATUS_BYTES_MAX: usize = 1 << 20;
