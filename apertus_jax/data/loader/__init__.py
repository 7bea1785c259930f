"""Batches: packed rows, the batch loader, transfer to devices, the same rows as seqio tasks."""
