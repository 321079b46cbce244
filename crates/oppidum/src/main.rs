//! oppidum.
fn main() {}
