//! Stands in for the binary while it is being wired.
fn main() {}
