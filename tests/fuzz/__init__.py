"""Fuzzing: what must hold for any input (`targets`), and what runs it (`python -m fuzz`, `make
fuzz`; README.md)."""
