"""pyrunc: a low-level OCI runtime for Linux.  Policy in Python, everything that touches the kernel in C."""

VERSION = "0.1.0"
SPEC_VERSION = "1.3.0"  # the runtime-spec that pyrunc follows
