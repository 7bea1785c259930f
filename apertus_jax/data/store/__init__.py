"""Token store: tokens, documents and their digests on disk, and the command that writes them."""
