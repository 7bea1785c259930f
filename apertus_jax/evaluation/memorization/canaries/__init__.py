"""Canaries: planted secrets and their exposure (Carlini et al. 2019)."""
