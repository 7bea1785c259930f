"""Provenance: which documents a step read, which steps read a document, what was removed since."""
