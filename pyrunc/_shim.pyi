"""The cffi extension (native/shim/build_shim.py); only pyrunc.native uses it, and gives each function its types."""

from typing import Any

ffi: Any
lib: Any
