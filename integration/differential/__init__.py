"""The differential test: run the same configs and command sequences on pyrunc, runc and crun, and
compare.

A case is data (`model`). `generator` draws cases from a seed, `runner` runs one on one runtime
inside a `sandbox`, `observe` turns what was seen into comparable facts, `compare` finds where the
runtimes differ, `deviations` explains what may, `reduce` makes a case smaller, `report` writes the
table. `python -m integration.differential --help`.
"""
