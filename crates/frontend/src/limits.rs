//! Every limit of the public API, with its reason.

use std::time::Duration;

/// The longest body, in bytes; an order has about 80.
pub const BODY_BYTES_MAX: usize = 16 * 1024;

/// The longest body of a batch, in bytes: a thousand orders with the longest keys and names take
/// half of it.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// The most batches in progress in one frontend; those beyond it get 503 at once. A leader's queue
/// takes sixteen full ones.
pub const BATCHES_OPEN_MAX: usize = 32;

/// The longest request target, in bytes: a percent-encoded name of 128 bytes takes 384.
pub const URI_BYTES_MAX: usize = 2_048;

/// The most bytes in the headers of a request.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// The longest head of a request, in bytes: the longest target and headers, and the separators.
pub const HEAD_BYTES_MAX: usize = URI_BYTES_MAX + HEADER_BYTES_MAX + 1024;

/// The most headers in a request.
pub const HEADERS_MAX: usize = 100;

/// The most connections to one frontend, if the limit of open files allows as many. When places run
/// short, the connection that is idle longest is evicted; if none is idle, a new one gets 503.
pub const CONNECTIONS_MAX: usize = 10_000;

/// The most connections of one client's address, unless a setting says otherwise: browsers open
/// six, and connection pools of services some dozens.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 128;

/// The most requests per second of one address without an API key, unless a setting says otherwise:
/// a page of a shop asks for some dozens.
pub const REQUESTS_PER_ADDRESS_MAX: u32 = 1_000;

/// This many seconds' worth of those requests may come at once.
pub const REQUESTS_BURST_FACTOR: u32 = 2;

/// A request beyond the rate of its client gets 429 after this pause, on a connection of the
/// client's own: its 128 connections get at most 1,280 such answers per second.
pub const RATE_EXCEEDED_PAUSE: Duration = Duration::from_millis(100);

/// One address may begin as many TLS handshakes per second as requests divided by this: a handshake
/// takes as much CPU as 10 requests.
pub const HANDSHAKE_REQUESTS: u32 = 10;

/// The failed authentications of one address in a minute that are answered at once.
pub const FAILED_AUTHENTICATIONS_MAX: u32 = 10;

/// A failed authentication beyond them is answered after this pause.
pub const FAILED_AUTHENTICATION_PAUSE: Duration = Duration::from_secs(1);

/// The most addresses whose requests are counted, those that were met last; the same for handshakes
/// and for bad API keys: some 10 MB each when full.
pub const ADDRESSES_COUNTED_MAX: usize = 65_536;

/// The most principals whose requests are counted: more than a ledger holds.
pub const PRINCIPALS_COUNTED_MAX: usize = 2_048;

/// The most bytes of all bodies that have arrived only in part.
pub const BODIES_BYTES_MAX: usize = 64 << 20;

/// The same for one address: eight of the longest batches, 512 of the longest orders.
pub const BODIES_PER_ADDRESS_BYTES_MAX: usize = 8 << 20;

/// A body that is awaited reserves at least this many bytes, and grows by as many: a slow sender
/// reserves what has arrived, not the length that it declares.
pub const BODY_RESERVED_MIN: usize = 4 * 1024;

/// The most lines of the access log in one second: clients must not fill the disk.
pub const LINES_PER_SECOND_MAX: u64 = 1_000;

/// The most requests in progress in one frontend; those beyond it get 503 at once. It is below the
/// limit of open calls per stream, so the frontend rejects before a replica does.
pub const REQUESTS_OPEN_MAX: usize = 8_192;

/// The admission limit is never below this many orders, however slow the store is: entries of the
/// log are cheaper in large batches.
pub const ORDERS_OPEN_MIN: usize = 256;

/// The most orders in flight at the beginning of a burst, before an overload is diagnosed.
pub const ORDERS_BURST_MAX: usize = 2_048;

/// The most connections that wait in the system to be accepted, if it allows as many (Linux does):
/// a burst of connects. A client that finds the backlog full is accepted a second later.
pub const CONNECTIONS_WAITING_MAX: u32 = 4_096;

/// The most connections that are not admitted and are kept until their 503 has arrived; or an
/// eighth of the places, if that is less.
pub const REJECTED_LINGERING_MAX: usize = 64;

/// The most connections accepted in a row: then the open connections have a turn.
pub const ACCEPTED_MAX: usize = 4;

/// The time-out for the head of a request, from its first byte.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// The time-out for the body of a request.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may read nothing of an answer that is sent to it: longer than a lost packet or
/// a sleepy phone takes.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection that closes after an answer waits for its client to close it, too: a round
/// trip around the world, and a lost packet.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// The most bytes read and dropped during that time. Dropped bytes take no memory, so the time is
/// the main limit; this one stops a client on the same host from keeping the thread busy.
pub const LINGER_BYTES_MAX: usize = 64 * BATCH_BYTES_MAX;

/// After this no new try begins, and the client gets 503 or 504; also the deadline of an order.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a catalog may take to answer before another one is asked.
pub const CATALOG_TIMEOUT: Duration = Duration::from_millis(600);

/// A replica that has sent nothing for this long counts as silent; it sends something every 500 ms.
pub const SILENCE_MAX: Duration = Duration::from_millis(850);

/// How long an order waits while no majority is reachable and the rest is silent: writes must be
/// refused clearly within a second. The outage is logged then, too.
pub const LEADERLESS_MAX: Duration = Duration::from_millis(900);

/// The most products in one list, and the default of its limit.
pub const LIST_PRODUCTS_MAX: usize = 1_000;

/// The longest request id repeated in an answer, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// The number of cache events kept for `/status/cache`.
pub const TIMELINE_MAX: usize = 1_024;

/// About how many bytes of events `/status/cache` shows, the latest ones: together with the
/// contents, less than a connection may otherwise have unsent.
pub const TIMELINE_BYTES_MAX: usize = 192 * 1024;

/// The most cached products that `/status/cache` shows: the most recently used.
pub const CACHE_SHOWN_MAX: usize = 100;

/// The most renderings of `/status/cache` within [`VIEW_AGE_MAX`]: each takes up to a millisecond
/// of the only thread. Further requests share the last rendering.
pub const CACHE_RENDERED_MAX: u32 = 5;

/// The maximum age of the view of the store that `/status` on the public port shows. A poll asks
/// every process over fresh connections: five polls per second cost little, thousands would take
/// the connections that members need.
pub const VIEW_AGE_MAX: Duration = Duration::from_millis(200);
