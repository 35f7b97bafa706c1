/* Strict JSON in one pass: bytes to Python objects, and back. docs/adr/0014-json-reader.md
 * explains why.
 *
 * It is builtin in the launcher; other interpreters load it as pyrunc._reader.
 * pyrunc/_reader.pyi is the contract.
 */
#ifndef PYRUNC_READER_H
#define PYRUNC_READER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

enum {
    READER_DEPTH = 128, /* levels of arrays and objects; config.json needs 8 */
    /* Values of one document: 16 MiB of the smallest ones are 5 million objects, which take a
     * GiB. */
    READER_VALUES = 1 << 19,
    READER_DIGITS = 4300, /* characters of one number: the interpreter's limit for integers */
    READER_FAULTS = 100,  /* of the content, each reported separately */
};

extern PyMethodDef pyrunc_reader_calls[];

PyObject *read_json(PyObject *self, PyObject *const *args, Py_ssize_t count);
PyObject *write_json(PyObject *self, PyObject *const *args, Py_ssize_t count);

/* crowd.c: whether a dict with these keys (every `stride`-th is one) would be slow. -1 with an
 * exception set. */
int keys_crowd(PyObject *const *keys, size_t count, size_t stride);

#endif
