//! HyperCLOVA X, which counts lengths in tokens. Their names suffice to find them.

use super::Provider;

pub(super) const PROVIDER: Provider = Provider { name: "HyperCLOVA X", ..Provider::NOTHING };
