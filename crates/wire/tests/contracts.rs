//! The contracts between processes stay compatible with those of each release: a message, field,
//! enum value or method that a release had keeps its name, its number and its type.
//!
//! `releases/VERSION/contracts.binpb` holds the contracts of a release, as a `FileDescriptorSet`.
//! With `OPPIDUM_RECORD=DIR` those of the current program are written into `DIR`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// The file of a release.
const FILE: &str = "contracts.binpb";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The contracts of the current program, without comments and positions.
fn current() -> FileDescriptorSet {
    let proto = root().join("proto");
    let files = fs::read_dir(&proto).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    let mut set = protox::compile(files, [proto]).unwrap();
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set
}

/// Every promise of the contracts: what is promised, and how it looks on the wire.
fn promises(set: &FileDescriptorSet) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for file in &set.file {
        let package = file.package();
        for message in &file.message_type {
            promise_message(&mut all, package, message);
        }
        for one in &file.enum_type {
            promise_enum(&mut all, package, one);
        }
        for service in &file.service {
            for method in &service.method {
                let key = format!("{package}.{}/{}", service.name(), method.name());
                let stream = |is: bool| if is { "stream " } else { "" };
                let shape = format!(
                    "{}{} -> {}{}",
                    stream(method.client_streaming()),
                    method.input_type(),
                    stream(method.server_streaming()),
                    method.output_type()
                );
                all.insert(key, shape);
            }
        }
    }
    all
}

fn promise_message(all: &mut BTreeMap<String, String>, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        all.insert(format!("{name} field {}", field.number()), shape(message, field));
    }
    for inner in &message.nested_type {
        promise_message(all, &name, inner);
    }
    for one in &message.enum_type {
        promise_enum(all, &name, one);
    }
}

fn shape(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    // proto3 makes a `oneof` of its own for each optional field: both read alike on the wire.
    let one_of = field.oneof_index.filter(|_| !field.proto3_optional());
    let one_of = one_of.and_then(|place| message.oneof_decl.get(usize::try_from(place).ok()?));
    let one_of = one_of.map_or(String::new(), |one| format!(" in {}", one.name()));
    format!(
        "{} {:?} {:?} {}{one_of}",
        field.name(),
        field.label(),
        field.r#type(),
        field.type_name()
    )
}

fn promise_enum(all: &mut BTreeMap<String, String>, scope: &str, one: &EnumDescriptorProto) {
    for value in &one.value {
        all.insert(format!("{scope}.{} value {}", one.name(), value.number()), value.name().into());
    }
}

/// Each promise of `old` that `new` does not keep.
fn broken(old: &FileDescriptorSet, new: &FileDescriptorSet) -> Vec<String> {
    let new = promises(new);
    let kept = |key: &String, shape: &String| match new.get(key) {
        Some(now) if now == shape => None,
        Some(now) => Some(format!("{key}: was {shape:?}, is {now:?}")),
        None => Some(format!("{key}: was {shape:?}, is gone")),
    };
    promises(old).iter().filter_map(|(key, shape)| kept(key, shape)).collect()
}

/// True for the folder of a release; the name of an unfinished one begins with a dot.
fn is_release(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_dir() && !name.starts_with('.')
}

#[test]
fn every_contract_of_every_release_is_kept() {
    let current = current();
    let recording = std::env::var_os("OPPIDUM_RECORD");
    if let Some(folder) = &recording {
        fs::write(Path::new(folder).join(FILE), current.encode_to_vec()).unwrap();
    }
    let releases = fs::read_dir(root().join("releases")).unwrap();
    let releases: Vec<_> =
        releases.map(|entry| entry.unwrap().path()).filter(|path| is_release(path)).collect();
    assert!(!releases.is_empty() || recording.is_some());
    for release in releases {
        let bytes = fs::read(release.join(FILE)).unwrap();
        let old = FileDescriptorSet::decode(&bytes[..]).unwrap();
        assert!(100 < promises(&old).len(), "{}", release.display());
        assert_eq!(broken(&old, &current), Vec::<String>::new(), "{}", release.display());
    }
}

/// A change of a message.
type Change = fn(&mut DescriptorProto);

/// The contracts after a change of the message `LogId`.
fn changed(old: &FileDescriptorSet, change: Change) -> FileDescriptorSet {
    let mut set = old.clone();
    let messages = set.file.iter_mut().flat_map(|file| &mut file.message_type);
    messages.filter(|message| message.name() == "LogId").for_each(change);
    set
}

#[test]
fn a_field_that_is_reused_retyped_or_removed_breaks_the_contract() {
    let old = current();
    let changes: [(&str, Change); 4] = [
        ("is gone", |message| drop(message.field.remove(0))),
        ("Uint32", |message| message.field[0].set_type(Type::Uint32)),
        ("is gone", |message| message.field[1].number = Some(9)),
        ("reused", |message| message.field[2].name = Some("reused".into())),
    ];
    for (word, change) in changes {
        let broken = broken(&old, &changed(&old, change));
        assert!(broken.len() == 1 && broken[0].contains(word), "{broken:?}");
    }
    let more = changed(&old, |message| {
        message.field.push(FieldDescriptorProto { number: Some(4), ..Default::default() });
    });
    assert_eq!(broken(&old, &more), Vec::<String>::new(), "a new field breaks nothing");
}
