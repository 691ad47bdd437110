//! `pyoco-worker`.

fn main() {}
