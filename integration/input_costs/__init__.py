"""Data of any kind costs linear time and is bounded in space.

For each place of config.json (and of process files and resources of `update`) that holds a list, a
map, an object or a string, documents of up to the 16 MiB that are allowed: many items, items of a
wrong type, names that collide in a dict of this very executable, duplicates, NULs, long texts of
several kinds, deep nesting. The places come from `pyrunc.spec.schema`, so that a new field is
covered by itself. Each verb that reads such a document, or the state that came of it, has to

* end by itself, with success or with one error, and never by a signal or an internal error;
* take at most 2 s of processor time, and 6 s when it carries out more than 100,000 items;
* take at most 600 MiB of memory;
* write at most 64 KiB to stderr, whatever it is about.  What `plan`, `state` and `list` print on stdout when they
  succeed is the data itself, as long as that is: at most 32 bytes for each byte of the document.

`python -m integration.input_costs` (`make input-costs`) is the whole sweep,
integration/test_input_costs.py a sample.
"""
