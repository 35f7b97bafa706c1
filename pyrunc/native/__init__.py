"""The C core (native/shim), as typed functions: one module per subject.

A function takes numbers, bytes and sequences of them, and returns a value. It raises OSError, or
one of its subclasses, for a call that failed: ``errno``, and as ``strerror`` the name of the system
call. The caller adds what it was done for, usually as `pyrunc.errors.SysError`. Buffers, ``-errno``
and the two bindings (`binding`) are not seen outside this package.
"""
