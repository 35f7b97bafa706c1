"""Debian 13's engines in a root filesystem of Debian 13, on pyrunc and on its runc."""
