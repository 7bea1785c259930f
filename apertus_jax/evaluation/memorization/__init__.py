"""The memorization audit: how much of its training text a model gives back, word for word or nearly so."""
