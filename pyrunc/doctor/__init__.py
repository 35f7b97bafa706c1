"""`pyrunc doctor`: what this host offers, what of it a config would miss, and the commands that mend it.

Looks and tries out, in children that end; changes nothing.  Imported by its verb only.
"""
