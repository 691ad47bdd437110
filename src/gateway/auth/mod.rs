//! API keys: who asks, and what they may do.
//!
//! [`hash`] makes keys and checks secrets against what is kept of them.

pub mod hash;
