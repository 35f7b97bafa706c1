"""`pyrunc seccomp`: what a profile does, what a program asks for, and the profile that it needs.

Nothing here is imported by another verb.
"""
