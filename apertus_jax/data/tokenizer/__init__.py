"""Tokenizers: byte-level BPE, the layout of special tokens, the Apertus vocabulary."""
