"""Checkpoint and restore with a CRIU that bench/criu.sh has unpacked."""
