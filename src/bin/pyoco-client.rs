//! `pyoco-client`.

fn main() {}
