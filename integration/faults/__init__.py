"""Deliberate faults: every system call fails once, every process dies once, and everything happens
at once."""
