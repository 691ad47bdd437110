//! Who asks: what a handler may know and has to ask of them.

use std::sync::Arc;

use crate::model::key::{Permission, Role};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Somebody whom no key was asked of on a route for anybody: sees no run.
    Nobody,
    /// Anybody, at a gateway that asks for no keys: may do and sees everything.
    Anybody,
    Holder(Arc<Holder>),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Holder {
    pub key_id: String,
    /// Whose runs they submit and see.
    pub tenant_id: String,
    pub role: Role,
    pub(crate) version: u64,
}

impl Caller {
    pub fn may(&self, permission: Permission) -> bool {
        match self {
            Caller::Nobody => false,
            Caller::Anybody => true,
            Caller::Holder(holder) => holder.role.may(permission),
        }
    }

    /// Whether a run of this tenant exists for them.
    pub fn sees(&self, tenant_id: Option<&str>) -> bool {
        match self {
            Caller::Nobody => false,
            Caller::Anybody => true,
            // What was submitted without a key belongs to no tenant.
            Caller::Holder(holder) => tenant_id == Some(&holder.tenant_id),
        }
    }

    pub fn sees_all(&self) -> bool {
        matches!(self, Caller::Anybody)
    }

    /// Lists are narrowed to it and new runs belong to it; `None`: tenants are not told apart.
    pub fn tenant_id(&self) -> Option<&str> {
        self.holder().map(|holder| holder.tenant_id.as_str())
    }

    pub fn key_id(&self) -> Option<&str> {
        self.holder().map(|holder| holder.key_id.as_str())
    }

    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Caller::Holder(holder) => Some(holder),
            Caller::Nobody | Caller::Anybody => None,
        }
    }
}
