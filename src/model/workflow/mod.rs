//! `flow.yaml`: how it is read, and why one is refused.
