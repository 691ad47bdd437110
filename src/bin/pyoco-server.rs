//! `pyoco-server`.

fn main() {}
