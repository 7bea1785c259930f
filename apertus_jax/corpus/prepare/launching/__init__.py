"""Launchers of unit tasks: processes of this machine, SLURM arrays, Apache Beam."""
