"""Engines of a distribution (containerd, podman, docker, conmon), started for real, above pyrunc
and above runc."""
