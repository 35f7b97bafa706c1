"""Machines for tests: a QEMU guest with pure cgroup v2, systemd, another kernel or another
architecture."""
