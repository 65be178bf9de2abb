"""HTTP side of the embedded host: routes, keys, classic and streaming requests."""
