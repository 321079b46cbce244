//! Cycles: no files of a product's crate import each other, directly or by way of others.
//!
//! A file that stands alone can be read alone. An import is a `use`, or a path in the code that
//! begins with `crate`, `self`, `super` or a module of the file. A name that a module only passes
//! on counts as an import from the file that declares it. Tests are not looked at.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use crate::tidy::{Complaint, Source};

/// The most names that lead from one to another before an import is given up.
const ALIASES_MAX: usize = 8;

/// A path of names, from the root of a crate.
type Path = Vec<String>;

/// One file of a crate.
#[derive(Debug, Default)]
struct File {
    path: String,
    /// What it imports, by the full path.
    imports: Vec<Path>,
    /// The names that it declares with `use`, and what they mean.
    names: BTreeMap<String, Path>,
}

/// A crate: its files by their modules.
type Files = BTreeMap<Path, File>;

/// Each group of files that import each other.
pub(crate) fn check(sources: &[Source]) -> Vec<Complaint> {
    let mut crates: BTreeMap<&str, Vec<(Path, &Source)>> = BTreeMap::new();
    for source in sources {
        if let Some((root, module)) = place(&source.path) {
            crates.entry(root).or_default().push((module, source));
        }
    }
    let mut complaints = Vec::new();
    for sources in crates.into_values() {
        let modules: BTreeSet<Path> = sources.iter().map(|(module, _)| module.clone()).collect();
        let mut files = Files::new();
        for (module, source) in sources {
            match read(&source.text, &module, &modules) {
                Ok(file) => drop(files.insert(module, File { path: source.path.clone(), ..file })),
                Err(error) => complaints
                    .push(Complaint::whole(&source.path, format!("it is no Rust: {error}"))),
            }
        }
        complaints.extend(cycles(&files));
    }
    complaints
}

/// The source folder of a file's crate, and its module there. `None`: a test, or no source of the
/// product.
fn place(path: &str) -> Option<(&str, Path)> {
    let inner = path.strip_suffix(".rs").filter(|path| path.starts_with("crates/"))?;
    let at = inner.find("/src/")? + "/src".len();
    let mut module: Path = inner[at + 1..].split('/').map(str::to_owned).collect();
    if module.iter().any(|part| part.ends_with("tests")) {
        return None;
    }
    let is_root = module.len() == 1 && matches!(module[0].as_str(), "lib" | "main");
    if is_root || module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    Some((&path[..at], module))
}

fn read(text: &str, module: &[String], modules: &BTreeSet<Path>) -> Result<File, syn::Error> {
    let file = syn::parse_file(text)?;
    let mut reader =
        Reader { module: module.to_vec(), own: module, modules, file: File::default() };
    reader.visit_file(&file);
    Ok(reader.file)
}

/// Walks over one file and notes what it imports.
struct Reader<'a> {
    /// The module that is being read: the file's own, or one that is written in it.
    module: Path,
    own: &'a [String],
    modules: &'a BTreeSet<Path>,
    file: File,
}

impl Reader<'_> {
    /// The full path of a name as it is written here. `None`: it begins in another crate.
    fn full(&self, written: &[String]) -> Option<Path> {
        let (first, rest) = written.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([&self.module, rest].concat()),
            "super" => {
                let mut base = self.module.clone();
                let ups = written.iter().take_while(|part| *part == "super").count();
                base.truncate(base.len().saturating_sub(ups));
                Some([&base, &written[ups..]].concat())
            }
            _ => {
                let inside = [&self.module, written].concat();
                let is_child = self.modules.contains(&inside[..=self.module.len()]);
                is_child.then_some(inside)
            }
        }
    }

    fn note(&mut self, written: &[String]) {
        if let Some(full) = self.full(written) {
            self.file.imports.push(full);
        }
    }

    fn use_tree(&mut self, before: &mut Path, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.use_tree(before, &path.tree);
                before.pop();
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.use_tree(before, tree));
            }
            syn::UseTree::Glob(_) => self.note(before),
            syn::UseTree::Name(name) => self.used(before, &name.ident, &name.ident),
            syn::UseTree::Rename(name) => self.used(before, &name.ident, &name.rename),
        }
    }

    fn used(&mut self, before: &[String], name: &syn::Ident, alias: &syn::Ident) {
        let mut written = before.to_vec();
        let mut alias = alias.to_string();
        if name == "self" {
            alias = before.last().cloned().unwrap_or(alias);
        } else {
            written.push(name.to_string());
        }
        let Some(full) = self.full(&written) else { return };
        if self.module == self.own {
            self.file.names.insert(alias, full.clone());
        }
        self.file.imports.push(full);
    }
}

/// Whether an item is compiled for tests only.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    let cfg = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    cfg.filter_map(|attribute| attribute.parse_args::<syn::Path>().ok())
        .any(|condition| condition.is_ident("test"))
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_for_tests(&item.attrs) {
            return;
        }
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.use_tree(&mut Vec::new(), &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let written: Path = path.segments.iter().map(|part| part.ident.to_string()).collect();
        // A single name is declared here, or by a `use`.
        if 1 < written.len() {
            self.note(&written);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        // The arguments of most macros are expressions; the others hold no paths of ours.
        let arguments = item.parse_body_with(
            syn::punctuated::Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated,
        );
        for argument in arguments.iter().flatten() {
            self.visit_expr(argument);
        }
    }
}

/// The file that declares what a full path names.
fn declares<'a>(files: &'a Files, path: &Path, aliases: usize) -> Option<&'a Path> {
    let within = (0..=path.len()).rev().find_map(|end| {
        files.get_key_value(&path[..end]).map(|(module, file)| (module, file, &path[end..]))
    });
    let (module, file, rest) = within?;
    let alias = rest.first().and_then(|name| file.names.get(name));
    let further = alias.filter(|_| aliases < ALIASES_MAX).and_then(|alias| {
        let path = [alias.as_slice(), &rest[1..]].concat();
        declares(files, &path, aliases + 1)
    });
    Some(further.unwrap_or(module))
}

/// One complaint for each group of files that reach each other.
fn cycles(files: &Files) -> Vec<Complaint> {
    let edges: BTreeMap<&Path, BTreeSet<&Path>> = files
        .iter()
        .map(|(module, file)| {
            let to = file.imports.iter().filter_map(|path| declares(files, path, 0));
            (module, to.filter(|to| *to != module).collect())
        })
        .collect();
    let mut reached: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for module in files.keys() {
        let (mut seen, mut left) = (BTreeSet::new(), vec![module]);
        while let Some(next) = left.pop() {
            left.extend(edges[next].iter().filter(|to| seen.insert(**to)));
        }
        reached.insert(module, seen);
    }
    let mut done = BTreeSet::new();
    let mut complaints = Vec::new();
    for (module, file) in files {
        if !reached[module].contains(module) || done.contains(module) {
            continue;
        }
        let group: BTreeSet<&Path> = reached[module]
            .iter()
            .filter(|other| reached[**other].contains(module))
            .copied()
            .collect();
        let others = group.iter().filter(|other| **other != module);
        let others: Vec<&str> = others.map(|other| files[*other].path.as_str()).collect();
        let what = format!("it imports, and is imported by, {}", others.join(", "));
        complaints.push(Complaint::whole(&file.path, what));
        done.extend(group);
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(files: &[(&str, &str)]) -> Vec<String> {
        let source = |(path, text): &(&str, &str)| Source {
            path: format!("crates/order/src/{path}"),
            text: (*text).into(),
        };
        let sources: Vec<Source> = files.iter().map(source).collect();
        check(&sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn files_that_import_each_other_are_caught_in_each_way_of_writing_it() {
        let b = ("b.rs", "pub struct B(crate::a::A);");
        for a in [
            "use crate::b::B; pub struct A;",
            "use super::b; pub struct A;",
            "pub struct A; fn f() -> crate::b::B { loop {} }",
            "pub struct A; fn f() { println!(\"{}\", crate::b::g()); }",
            "pub struct A; mod inner { use super::super::b::B; }",
        ] {
            let caught = complaints(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), b]);
            let path = "crates/order/src";
            let expected = format!("{path}/a.rs: it imports, and is imported by, {path}/b.rs");
            assert_eq!(caught, [expected], "{a}");
        }
    }

    #[test]
    fn a_folder_and_a_file_in_it_that_uses_its_types_are_a_cycle() {
        let root = ("raft/mod.rs", "mod a; pub struct Root; fn f() { a::g() }");
        assert_eq!(complaints(&[root, ("raft/a.rs", "use super::Root; pub fn g() {}")]).len(), 1);
    }

    #[test]
    fn a_name_that_is_passed_on_is_an_import_from_where_it_is_declared() {
        let root = ("lib.rs", "mod a; mod b; pub use a::A;");
        let b = ("b.rs", "use crate::A; pub struct B;");
        assert!(complaints(&[root, ("a.rs", "pub struct A;"), b]).is_empty());
        let a = ("a.rs", "use crate::b::B; pub struct A;");
        assert_eq!(complaints(&[root, a, b]).len(), 1);
    }

    #[test]
    fn tests_may_import_what_they_test() {
        let a = ("a.rs", "use crate::b::B; pub struct A;");
        let b = "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }";
        let root = ("lib.rs", "mod a; mod b;");
        assert!(complaints(&[root, a, ("b.rs", b)]).is_empty());
        let tests = ("b/tests.rs", "use super::*; use crate::a::A;");
        assert!(complaints(&[root, a, ("b.rs", "pub struct B;"), tests]).is_empty());
    }
}
