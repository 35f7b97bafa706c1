"""Checkpoint and restore with CRIU, driven over the socket of `criu swrk`
(docs/adr/0030-criu.md)."""
