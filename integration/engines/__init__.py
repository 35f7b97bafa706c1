"""Real engines of a distribution (containerd, podman, docker, conmon), on pyrunc and on runc."""
