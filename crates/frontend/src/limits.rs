//! Every bound of the public API, with its reason.

use std::time::Duration;

/// The longest body, in bytes: an order is some eighty bytes long.
pub const BODY_BYTES_MAX: usize = 16 * 1024;

/// The longest body of a batch, in bytes: a thousand orders with keys and names of the greatest
/// length take half of it.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// The most batches at work in one frontend; those beyond it get 503 at once. What a leader lets
/// wait is sixteen full ones.
pub const BATCHES_OPEN_MAX: usize = 32;

/// The longest request target, in bytes: a percent-encoded name of 128 bytes takes 384.
pub const URI_BYTES_MAX: usize = 2_048;

/// The most bytes in the headers of a request.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// The longest head of a request, in bytes: the longest target and headers, and what separates
/// them.
pub const HEAD_BYTES_MAX: usize = URI_BYTES_MAX + HEADER_BYTES_MAX + 1024;

/// The most headers in a request.
pub const HEADERS_MAX: usize = 100;

/// The most connections to one frontend, if the limit of open files allows as many. When places run
/// short, the one that is idle longest makes room; without one, a new connection gets 503.
pub const CONNECTIONS_MAX: usize = 10_000;

/// The most connections of one client's address, unless a setting says otherwise: browsers open
/// six, and pools of services some dozens.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 128;

/// The most bytes of bodies that have come in part, together.
pub const BODIES_BYTES_MAX: usize = 64 << 20;

/// The same of one address: eight of the longest batches, 512 of the longest orders.
pub const BODIES_PER_ADDRESS_BYTES_MAX: usize = 8 << 20;

/// A body that is waited for counts as at least this many bytes, and grows by as many: a slow
/// sender takes what has come, and not what it says will come.
pub const BODY_RESERVED_MIN: usize = 4 * 1024;

/// The most lines of the access log in one second: a disk is not filled by those who ask.
pub const LINES_PER_SECOND_MAX: u64 = 1_000;

/// The most requests at work in one frontend; those beyond it get 503 at once. Below the bound on
/// open calls of one stream, so that the frontend sheds before a replica does.
pub const REQUESTS_OPEN_MAX: usize = 8_192;

/// So many orders are let in at once, however slow the store is: entries of the log want company.
pub const ORDERS_OPEN_MIN: usize = 256;

/// So many orders are let in at once before anybody asks whether more come than can be done.
pub const ORDERS_BURST_MAX: usize = 2_048;

/// So many connections wait in the system to be accepted, if it allows as many (Linux does): a
/// crowd that comes all at once. Whoever finds the line full is heard a second later.
pub const CONNECTIONS_WAITING_MAX: u32 = 4_096;

/// The most connections that are not admitted and are kept until their 503 has arrived, or an
/// eighth of the places, if these are few.
pub const REJECTED_LINGERING_MAX: usize = 64;

/// So many connections are accepted at a time: then those that are there have a turn.
pub const ACCEPTED_MAX: usize = 4;

/// How long the head of a request may take to arrive, from its first byte.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the body of a request may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take nothing of an answer that is sent to it: longer than a lost packet or
/// a sleepy phone takes.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection that is closed behind an answer waits for its client to close it, too: a
/// round trip around the world, and a lost packet.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// The most bytes that are read and dropped meanwhile. Dropped bytes take no memory, so it is the
/// time that bounds; a client on the same host must not keep the thread busy with them.
pub const LINGER_BYTES_MAX: usize = 64 * BATCH_BYTES_MAX;

/// How long a client waits for an answer at the most: then 503 or 504.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long a catalog may take to answer before another is asked.
pub const CATALOG_PATIENCE: Duration = Duration::from_millis(600);

/// A replica that has said nothing for so long counts as silent; it says something every 500 ms.
pub const SILENCE_MAX: Duration = Duration::from_millis(850);

/// How long a request waits for a leader while no majority can be heard: writes are refused clearly
/// within a second.
pub const LEADERLESS_MAX: Duration = Duration::from_millis(900);

/// The most products in one list, and how many when the client does not say.
pub const LIST_PRODUCTS_MAX: usize = 1_000;

/// The longest request id taken over from a client, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// How many cache events are kept for `/status/cache`.
pub const TIMELINE_MAX: usize = 1_024;

/// About how many bytes of events `/status/cache` shows, the latest: with what is cached, less than
/// a connection may have unsent otherwise.
pub const TIMELINE_BYTES_MAX: usize = 192 * 1024;

/// How many products `/status/cache` shows of what is cached: those used last.
pub const CACHE_SHOWN_MAX: usize = 100;

/// How often `/status/cache` is rendered within [`VIEW_AGE_MAX`]: it takes up to a millisecond of
/// the one thread. More requests share the last rendering.
pub const CACHE_RENDERED_MAX: u32 = 5;

/// How old the view of the store is at most that `/status` on the public port shows. A look asks
/// every process over fresh connections: five looks in a second cost little, thousands would
/// take the room that members need.
pub const VIEW_AGE_MAX: Duration = Duration::from_millis(200);
