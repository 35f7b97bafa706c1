"""Check that any input costs linear time and bounded space.

For each position in config.json (and in process files and resources of `update`) that holds a list,
a map, an object or a string, there are documents of up to the allowed 16 MiB: many items, items of
a wrong type, names that collide in a dict of this executable, duplicates, NULs, long texts of
several kinds, deep nesting. The positions come from `pyrunc.spec.schema`, so that new fields are
covered automatically. Each verb that reads such a document, or the state created from it, must

* end by itself, with success or with one error, and never by a signal or an internal error;
* take at most 2 s of CPU time, or 6 s if it processes more than 100,000 items;
* use at most 600 MiB of memory;
* write at most 64 KiB to stderr. On success, `plan`, `state` and `list` print the data itself on
  stdout: at most 32 bytes for each byte of the document.

`python -m integration.input_costs` (`make input-costs`) runs the complete sweep;
integration/test_input_costs.py runs a sample.
"""
