"""Files and folders: artifacts with digests, leases, listings, durable writes, strict JSON, checks of places."""
