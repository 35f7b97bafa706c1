"""`pyrunc seccomp`: what a profile does, which calls a program makes, and the profile that it
needs.

No other verb imports this package.
"""
