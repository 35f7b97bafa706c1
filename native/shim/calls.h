/* Arguments of the generated functions (gen_calls.py). */
#ifndef PYRUNC_CALLS_H
#define PYRUNC_CALLS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <limits.h>

struct argument {
    unsigned long long number; /* of a signed type: cast */
    double real;
    void *pointer;
    void *owned; /* to be freed: the array of a list */
    Py_buffer view;
};

extern PyMethodDef pyrunc_calls[];

/* The result, or the OSError of -errno that names the call. As posix does: FileNotFoundError and
 * so on. */
static PyObject *answer(long long result, const char *call)
{
    if (result >= 0)
        return PyLong_FromLongLong(result);
    PyObject *args = Py_BuildValue("(Ls)", -result, call);
    if (args) {
        PyErr_SetObject(PyExc_OSError, args);
        Py_DECREF(args);
    }
    return NULL;
}

static void release(struct argument *arguments, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (arguments[i].view.obj)
            PyBuffer_Release(&arguments[i].view);
        PyMem_Free(arguments[i].owned);
    }
}

/* A number that fits; OverflowError otherwise, as with cffi. */
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

static int take_real(PyObject *given, struct argument *to)
{
    to->real = PyFloat_AsDouble(given);
    return to->real == -1.0 && PyErr_Occurred() ? -1 : 0;
}

/* One byte: a char. */
static int take_char(PyObject *given, struct argument *to)
{
    if (!PyBytes_Check(given) || PyBytes_GET_SIZE(given) != 1) {
        PyErr_SetString(PyExc_TypeError, "one byte is expected");
        return -1;
    }
    to->number = (unsigned char)PyBytes_AS_STRING(given)[0];
    return 0;
}

/* A list of bytes, which the caller keeps alive, as a NULL-terminated array. */
static int take_list(PyObject *given, struct argument *to)
{
    if (!PyList_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "a list is expected");
        return -1;
    }
    Py_ssize_t count = PyList_GET_SIZE(given);
    char **texts = PyMem_Calloc((size_t)count + 1, sizeof *texts);
    if (!texts) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PyList_GET_ITEM(given, i);
        if (!PyBytes_Check(item)) {
            PyMem_Free(texts);
            PyErr_SetString(PyExc_TypeError, "a list of bytes is expected");
            return -1;
        }
        texts[i] = PyBytes_AS_STRING(item);
    }
    to->pointer = to->owned = texts;
    return 0;
}

/* s: a path or text (bytes end in a NUL); p: memory; w: memory that is written. */
static int take_buffer(char kind, PyObject *given, struct argument *to)
{
    if (given == Py_None)
        return 0;
    if (kind == 's' && !PyBytes_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "bytes are expected");
        return -1;
    }
    if (PyObject_GetBuffer(given, &to->view, kind == 'w' ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0)
        return -1;
    to->pointer = to->view.buf;
    return 0;
}

static int take_one(char kind, PyObject *given, struct argument *to)
{
    switch (kind) {
    case 'd':
        return take_real(given, to);
    case 'c':
        return take_char(given, to);
    case 'v':
        return take_list(given, to);
    case 's':
    case 'p':
    case 'w':
        return take_buffer(kind, given, to);
    default:
        return take_number(kind, given, to);
    }
}

/* kinds, one letter each: i int, u unsigned int, q int64_t, Q uint64_t, d double, c char, v list
 * of bytes, and those of take_buffer(). */
static int take(const char *name, const char *kinds, PyObject *const *given, Py_ssize_t count,
                struct argument *to)
{
    size_t wanted = strlen(kinds);
    if ((size_t)count != wanted) {
        PyErr_Format(PyExc_TypeError, "%s: expected %zu arguments, got %zd", name, wanted, count);
        return -1;
    }
    for (size_t i = 0; i < wanted; i++) {
        to[i].pointer = to[i].owned = NULL;
        to[i].view.obj = NULL;
        if (take_one(kinds[i], given[i], &to[i]) < 0) {
            to[i].view.obj = NULL;
            release(to, i);
            return -1;
        }
    }
    return 0;
}

#endif
