"""Terminal output: terminal-safe text, console streams, HTML reports."""
