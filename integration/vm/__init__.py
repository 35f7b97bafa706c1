"""Virtual machines for tests: QEMU guests with pure cgroup v2, systemd, another kernel or another
architecture."""
