//! `pyoco-server-admin`.

fn main() {}
