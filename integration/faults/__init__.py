"""Faults on purpose: every system call fails once, every process dies once, everything happens at once."""
