"""Containers that exist: start, kill, delete, update, measure, and what is left of a damaged one."""
