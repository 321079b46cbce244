//! Locks: how a store demands certificates of its processes and API keys of its clients.
//!
//! Processes and tools find their certificates and API key in the `.env` of the store's folder.
//! Requests of a test get the customers' API key by the port they go to, so that a test runs on a
//! locked store without any other change.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use wire::dial::Route;
use wire::tls::credentials::Credentials;
use wire::tls::subject::{CertificateRole, Holder};

use super::http::READ_TIMEOUT;
use super::{Authority, run};

/// The principal of the customers.
pub(super) const CUSTOMERS: &str = "customers";

/// What an open store allows without an API key, apart from looking up the orders of others.
pub(super) const CUSTOMERS_SCOPES: &str = "query,order,import";

/// The `Authorization` of the customers, by the public port of their frontend.
static CUSTOMERS_KEYS: Mutex<BTreeMap<u16, String>> = Mutex::new(BTreeMap::new());

/// The `Authorization` of a customer on this connection, if its store is locked.
pub(super) fn authorization(stream: &TcpStream) -> Option<String> {
    let port = stream.peer_addr().ok()?.port();
    CUSTOMERS_KEYS.lock().unwrap().get(&port).cloned()
}

/// The certificates and API keys of a locked store.
pub(super) struct Lock {
    pub(super) authority: Authority,
    operator: Arc<Credentials>,
    /// The API key of the tools: the root key, then that of the customers.
    key_file: PathBuf,
    /// The `Authorization` of the customers.
    value: String,
    /// The ports of the store's frontends.
    ports: Mutex<Vec<u16>>,
}

impl Lock {
    /// Prepares the folder of a store, before any process starts.
    pub(super) fn prepare(folder: &Path) -> Self {
        let authority = Authority::new(&folder.join("tls"));
        let operator = authority.credentials(Holder::Any(CertificateRole::Operator));
        let keys = folder.join("keys");
        let made = run(&["init", "--data", keys.to_str().unwrap()]);
        assert_eq!(made.code, Some(0), "{made:?}");
        let key_file = keys.join("root.key");
        let settings = format!(
            "OPPIDUM_TLS={}\nOPPIDUM_KEY_FILE={}\n{}\n",
            authority.folder(),
            key_file.display(),
            made.stdout.trim()
        );
        fs::write(folder.join(".env"), settings).unwrap();
        let value = bearer(&fs::read_to_string(&key_file).unwrap());
        Self { authority, operator, key_file, value, ports: Mutex::default() }
    }

    /// From now on requests to this frontend carry the customers' API key.
    pub(super) fn admit(&self, port: u16) {
        self.ports.lock().unwrap().push(port);
        CUSTOMERS_KEYS.lock().unwrap().insert(port, self.value.clone());
    }

    /// From now on tools and all requests carry this API key.
    pub(super) fn replace_key(&mut self, key: &str) {
        fs::write(&self.key_file, key).unwrap();
        self.value = bearer(key);
        let ports = std::mem::take(&mut *self.ports.lock().unwrap());
        for port in ports {
            self.admit(port);
        }
    }

    /// A page of an internal port, as the operator sees it.
    pub(super) fn page(&self, of: Holder, port: u16, page: &str) -> Option<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (route, address) = (Route::to(of, Some(&self.operator)), format!("127.0.0.1:{port}"));
        let asking = wire::status::get(&route, &address, page, READ_TIMEOUT);
        // A frozen process accepts the connection and says nothing.
        let asking = async { tokio::time::timeout(READ_TIMEOUT, asking).await };
        let bytes = runtime.block_on(asking).ok()?.ok()?;
        String::from_utf8(bytes.into()).ok()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let ports = self.ports.lock().unwrap();
        CUSTOMERS_KEYS.lock().unwrap().retain(|port, _| !ports.contains(port));
    }
}

fn bearer(key: &str) -> String {
    format!("Bearer {}", key.trim())
}
