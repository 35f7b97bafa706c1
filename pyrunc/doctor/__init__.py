"""`pyrunc doctor`: what this host offers, what a config lacks here, and the commands that fix it.

The checks inspect and probe, in child processes; they change nothing. Only the verb imports this
package.
"""
