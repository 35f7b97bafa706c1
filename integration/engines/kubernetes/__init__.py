"""A Kubernetes cluster of one node with two RuntimeClasses; the same pods run on pyrunc and on
runc."""
