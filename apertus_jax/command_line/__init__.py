"""Command line: the parser, plain flags and what they bind, shell completion, the closing line."""
