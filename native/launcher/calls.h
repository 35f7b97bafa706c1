/* Arguments of the generated functions (gen_calls.py). */
#ifndef PYRUNC_CALLS_H
#define PYRUNC_CALLS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <limits.h>

struct argument {
    unsigned long long number; /* of a signed type: cast */
    void *pointer;
    Py_buffer view;
};

extern PyMethodDef pyrunc_calls[];

static void release(struct argument *arguments, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (arguments[i].view.obj)
            PyBuffer_Release(&arguments[i].view);
}

/* A number that fits; cffi says OverflowError as well. */
static int take_number(char kind, PyObject *given, struct argument *to)
{
    if (!PyLong_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "a number is expected");
        return -1;
    }
    if (kind == 'u' || kind == 'Q') {
        to->number = PyLong_AsUnsignedLongLong(given);
        if (to->number > UINT_MAX && kind == 'u' && !PyErr_Occurred())
            PyErr_SetString(PyExc_OverflowError, "number too large");
    } else {
        long long number = PyLong_AsLongLong(given);
        if ((number < INT_MIN || number > INT_MAX) && kind == 'i' && !PyErr_Occurred())
            PyErr_SetString(PyExc_OverflowError, "number too large");
        to->number = (unsigned long long)number;
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* kinds, one letter each: i int, u unsigned int, q int64_t, Q uint64_t, s a path or a text (bytes: they end in NUL),
 * p memory, w memory that is written. */
static int take(const char *name, const char *kinds, PyObject *const *given, Py_ssize_t count,
                struct argument *to)
{
    size_t wanted = strlen(kinds);
    if ((size_t)count != wanted) {
        PyErr_Format(PyExc_TypeError, "%s: expected %zu arguments, got %zd", name, wanted, count);
        return -1;
    }
    for (size_t i = 0; i < wanted; i++) {
        int result = 0;
        to[i].pointer = NULL;
        to[i].view.obj = NULL;
        if (strchr("iuqQ", kinds[i])) {
            result = take_number(kinds[i], given[i], &to[i]);
        } else if (given[i] != Py_None) {
            if (kinds[i] == 's' && !PyBytes_Check(given[i])) {
                PyErr_Format(PyExc_TypeError, "%s: bytes are expected", name);
                result = -1;
            } else {
                result = PyObject_GetBuffer(given[i], &to[i].view,
                                            kinds[i] == 'w' ? PyBUF_WRITABLE : PyBUF_SIMPLE);
                to[i].pointer = to[i].view.buf;
            }
        }
        if (result < 0) {
            to[i].view.obj = NULL;
            release(to, i);
            return -1;
        }
    }
    return 0;
}

#endif
