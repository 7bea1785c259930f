"""Process environment: failures as one line, interruptions, time limits, memory, secrets, the machine."""
