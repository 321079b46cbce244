//! The CA of a store on one machine, whose certificates never end: no operator renews them.

use std::path::Path;

use wire::exit::Stop;

use super::authority::{Authority, Validity};
use super::folder::{CA, CaFolder};
use super::subject::{StoreName, Subject};

/// Makes what is missing in a folder: a CA, and a pair for each of these subjects. What is there
/// stays, unless its CA is new.
pub(crate) fn complete(path: &Path, store: &StoreName, subjects: &[Subject]) -> Result<(), Stop> {
    let folder = CaFolder::create(path)?;
    let (authority, is_new) = match folder.authority()? {
        Some(authority) if authority.store() == store => (authority, false),
        Some(authority) => {
            let why =
                format!("holds the certificates of store {}, not of {store}", authority.store());
            return Err(Stop::Setup(format!("{} {why}", path.display())));
        }
        None => {
            let made = Authority::create(store, Validity::ALWAYS).map_err(Stop::Setup)?;
            let (authority, pair) = made;
            folder.write(CA, &pair)?;
            (authority, true)
        }
    };
    for subject in subjects {
        let has_both = ["pem", "key"].iter().all(|kind| folder.has(&format!("{subject}.{kind}")));
        if is_new || !has_both {
            let hosts = ["localhost", "127.0.0.1", "::1"].map(str::parse);
            let hosts = hosts.into_iter().collect::<Result<Vec<_>, _>>().map_err(Stop::Setup)?;
            let pair = authority.issue(subject, &hosts, Validity::ALWAYS).map_err(Stop::Setup)?;
            folder.write(&subject.to_string(), &pair)?;
        }
    }
    Ok(())
}
