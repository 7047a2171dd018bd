//! Names that people and clouds give: cheap to copy, never mixed up. What makes a name valid is checked in `config`.

use std::{borrow::Borrow, fmt, sync::Arc};

macro_rules! name_type {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// This name.
            #[must_use]
            pub fn new(name: &str) -> Self {
                Self(Arc::from(name))
            }
            /// As plain text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}

name_type! {
    /// A project: who pays.
    ProjectName;
    /// A person or a service that submits.
    UserName;
    /// A provider as configured, such as `aws` or `local`.
    ProviderName;
    /// A provider's region, such as `us-east-1`.
    Region;
    /// A zone within a region, such as `us-east-1a`.
    Zone;
    /// A provider's name of an instance type, such as `g5.xlarge`.
    TypeName;
    /// An accelerator's name, the same across clouds, such as `A100`.
    AcceleratorName;
    /// The cloud's own name of an instance, such as `i-0abc`.
    CloudId;
}
