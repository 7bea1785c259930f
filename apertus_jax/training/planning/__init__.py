"""Planning: memory, FLOPs, time and disk of a run, before there is any hardware."""
