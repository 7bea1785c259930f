"""Membership inference: attacks, their quality, and the baseline that never saw the model."""
