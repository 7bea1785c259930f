"""Web formats: HTTP messages, content codings, text encodings, and dates."""
