//! The list of the crates in the program, as a bill of materials in the format `CycloneDX` 1.5.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A line of `cargo tree --prefix none --format "{p}\t{l}"` as a crate: name, version, licence.
fn parse(line: &str) -> Option<(&str, &str, &str)> {
    let (package, licence) = line.split_once('\t')?;
    let mut words = package.split(' ');
    let name = words.next()?;
    let version = words.next()?.strip_prefix('v')?;
    Some((name, version, licence.trim_end_matches(" (*)")))
}

/// The checksums of a `Cargo.lock`, by name and version.
fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    let lock: toml::Table = toml::from_str(lock).context("Cargo.lock")?;
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let text = |package: &toml::Value, key| Some(package.get(key)?.as_str()?.to_owned());
    Ok(packages
        .filter_map(|package| {
            let key = (text(package, "name")?, text(package, "version")?);
            Some((key, text(package, "checksum")?))
        })
        .collect())
}

/// The bill of materials of `program`: every crate of the tree once, with its licence and checksum.
pub(super) fn write(program: &str, version: &str, tree: &str, lock: &str) -> Result<String> {
    let checksums = checksums(lock)?;
    let crates: BTreeMap<_, _> = tree
        .lines()
        .filter_map(parse)
        .map(|(name, version, licence)| ((name.to_owned(), version.to_owned()), licence))
        .collect();
    let component = |((name, version), licence): (&(String, String), &&str)| {
        let mut component = json!({
            "type": "library",
            "name": name,
            "version": version,
            "purl": format!("pkg:cargo/{name}@{}", version.replace('+', "%2B")),
        });
        if !licence.is_empty() {
            // The old form of a choice.
            let expression = licence.replace('/', " OR ");
            component["licenses"] = json!([{ "expression": expression }]);
        }
        if let Some(checksum) = checksums.get(&(name.clone(), version.clone())) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        component
    };
    let components: Vec<Value> = crates.iter().map(component).collect();
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": { "type": "application", "name": program, "version": version } },
        "components": components,
    });
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_is_listed_once_with_its_licence_and_its_checksum() {
        let tree = "shop v0.1.0 (/work)\tApache-2.0\nbytes v1.10.0\tMIT\n\
                    serde_derive v1.0.2 (proc-macro)\tMIT OR Apache-2.0\nbytes v1.10.0\tMIT (*)\n";
        let lock = "[[package]]\nname = \"bytes\"\nversion = \"1.10.0\"\nchecksum = \"abc\"\n";
        let bill: Value =
            serde_json::from_str(&write("shop", "0.1.0", tree, lock).unwrap()).unwrap();
        let components = bill["components"].as_array().unwrap();
        let names: Vec<_> = components.iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["bytes", "serde_derive", "shop"]);
        assert_eq!(components[0]["hashes"][0]["content"], "abc");
        assert_eq!(components[1]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(components[1]["purl"], "pkg:cargo/serde_derive@1.0.2");
        assert_eq!(components[2].get("hashes"), None);
    }
}
