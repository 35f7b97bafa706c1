"""Whole-process comparison of pyrunc with runc and crun on one machine and one bundle (`make
bench`, needs root)."""
