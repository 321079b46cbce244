//! The certificates of a store that `up` runs: each process proves its role to the others, so that
//! no other program of this machine passes for a replica. They never end, and nothing renews them.

use std::path::{Path, PathBuf};

use wire::exit::Stop;
use wire::tls::subject::CertificateRole;

use super::plan::IDS;
use crate::ca::local;
use crate::ca::subject::{StoreName, Subject};
use crate::cli::values::FreeText;
use crate::settings::{self, Settings};

/// The name in the certificates of all roles but replicas.
const NAME: &str = "up";

/// The name of the store, as certificates can say it.
pub(super) fn store_name(settings: &mut Settings) -> Result<StoreName, Stop> {
    let FreeText(name) = settings.want(settings::CLUSTER, None)?;
    name.parse().map_err(|why| {
        Stop::Setup(format!("cluster: {why}. A store that has another name needs --open-internal"))
    })
}

/// The folder of the certificates beside the data folders.
pub(super) fn folder(data: &Path) -> PathBuf {
    data.join("tls")
}

/// Makes what is missing in the folder of the certificates.
pub(super) fn complete(folder: &Path, store: &StoreName) -> Result<(), Stop> {
    let replicas = IDS.map(|id| (CertificateRole::Order, id.to_string()));
    let others = [CertificateRole::Catalog, CertificateRole::Frontend, CertificateRole::Operator];
    let others = others.map(|role| (role, NAME.to_owned()));
    let subjects = replicas.into_iter().chain(others);
    let subjects = subjects.map(|(role, name)| Subject::new(role, &name));
    let subjects = subjects.collect::<Result<Vec<_>, _>>().map_err(Stop::Setup)?;
    local::complete(folder, store, &subjects).map_err(|why| {
        let folder = folder.display();
        Stop::Setup(format!("{why}. Remove {folder}, and `up` makes it again (OPPIDUM_CLUSTER)"))
    })
}
