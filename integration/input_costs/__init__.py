"""Check that any input costs linear time and bounded space.

For each position in config.json (and in process files and resources of `update`) that holds a list,
a map, an object or a string, there are documents of up to the allowed 16 MiB: many items, items of
a wrong type, names that collide in a dict of this executable, duplicates, NULs, long texts of
several kinds, deep nesting. The positions come from `pyrunc.spec.schema`, so that new fields are
covered automatically. Each verb that reads such a document, or the state created from it, must

* end by itself, with success or with one error, and never by a signal or an internal error;
* take at most 2 s of processor time, and 6 s when it carries out more than 100,000 items;
* take at most 600 MiB of memory;
* write at most 64 KiB to stderr, whatever it is about.  What `plan`, `state` and `list` print on stdout when they
  succeed is the data itself, as long as that is: at most 32 bytes for each byte of the document.

`python -m integration.input_costs` (`make input-costs`) is the whole sweep,
integration/test_input_costs.py a sample.
"""
