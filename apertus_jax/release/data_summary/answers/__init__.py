"""Answers of the public training-data summary, section by section."""
