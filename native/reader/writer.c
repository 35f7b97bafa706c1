/* The writer: Python objects to JSON in ASCII.  pyrunc/_reader.pyi is the contract. */
#include "reader.h"

#include <string.h>

struct writer {
    char *text;
    size_t len, space;
    const char *indent; /* of one level; "" for one line */
    size_t indent_len, depth;
};

static int write_value(struct writer *w, PyObject *value);

static int reserve(struct writer *w, size_t more)
{
    if (more <= w->space - w->len)
        return 0;
    size_t space = w->space * 2 > w->len + more ? w->space * 2 : w->len + more;
    char *text = PyMem_Realloc(w->text, space);
    if (!text) {
        PyErr_NoMemory();
        return -1;
    }
    w->text = text;
    w->space = space;
    return 0;
}

static int put(struct writer *w, const char *text, size_t len)
{
    if (reserve(w, len) < 0)
        return -1;
    memcpy(w->text + w->len, text, len);
    w->len += len;
    return 0;
}

static void put_escape(struct writer *w, unsigned int unit)
{
    static const char digits[] = "0123456789abcdef";
    char escape[6] = {'\\',
                      'u',
                      digits[unit >> 12 & 15],
                      digits[unit >> 8 & 15],
                      digits[unit >> 4 & 15],
                      digits[unit & 15]};
    memcpy(w->text + w->len, escape, sizeof escape);
    w->len += sizeof escape;
}

/* Write one character; there is room. A byte that was not UTF-8 is a lone surrogate and remains
 * one. */
static void put_character(struct writer *w, Py_UCS4 c)
{
    static const char special[] = "\"\\\n\r\t", letters[] = "\"\\nrt";
    const char *place = c && c < 128 ? strchr(special, (int)c) : NULL;
    if (c >= 0x10000) {
        put_escape(w, 0xD800 + ((c - 0x10000) >> 10));
        put_escape(w, 0xDC00 + ((c - 0x10000) & 0x3FF));
    } else if (place) {
        w->text[w->len++] = '\\';
        w->text[w->len++] = letters[place - special];
    } else if (c < 32 || c > 126) {
        put_escape(w, c);
    } else {
        w->text[w->len++] = (char)c;
    }
}

static int write_string(struct writer *w, PyObject *text)
{
    Py_ssize_t len = PyUnicode_GET_LENGTH(text);
    int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    if (put(w, "\"", 1) < 0)
        return -1;
    for (Py_ssize_t at = 0; at < len;) {
        /* Reserve room for several of the longest characters: checking for each one is slow. */
        Py_ssize_t end = len - at > 256 ? at + 256 : len;
        if (reserve(w, (size_t)(end - at) * 12) < 0)
            return -1;
        for (; at < end; at++)
            put_character(w, PyUnicode_READ(kind, data, at));
    }
    return put(w, "\"", 1);
}

/* A number, as Python formats it. */
static int write_number(struct writer *w, PyObject *text)
{
    Py_ssize_t len;
    const char *words = text ? PyUnicode_AsUTF8AndSize(text, &len) : NULL;
    int result = words ? put(w, words, (size_t)len) : -1;
    Py_XDECREF(text);
    return result;
}

static int new_line(struct writer *w)
{
    if (w->indent_len == 0)
        return 0;
    if (put(w, "\n", 1) < 0)
        return -1;
    for (size_t i = 0; i < w->depth; i++)
        if (put(w, w->indent, w->indent_len) < 0)
            return -1;
    return 0;
}

static int between(struct writer *w, int first)
{
    return !first && put(w, ",", 1) < 0 ? -1 : new_line(w);
}

static int write_object(struct writer *w, PyObject *dict)
{
    PyObject *key, *value;
    Py_ssize_t place = 0;
    int first = 1;
    while (PyDict_Next(dict, &place, &key, &value)) {
        if (!PyUnicode_Check(key)) {
            PyErr_SetString(PyExc_TypeError, "JSON keys must be str");
            return -1;
        }
        if (between(w, first) < 0 || write_string(w, key) < 0 || put(w, ": ", w->indent_len ? 2 : 1) < 0 ||
            write_value(w, value) < 0)
            return -1;
        first = 0;
    }
    return 0;
}

static int write_array(struct writer *w, PyObject *items)
{
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items); i++)
        if (between(w, i == 0) < 0 || write_value(w, PySequence_Fast_GET_ITEM(items, i)) < 0)
            return -1;
    return 0;
}

static int write_container(struct writer *w, PyObject *value, int is_object)
{
    Py_ssize_t count = is_object ? PyDict_GET_SIZE(value) : PySequence_Fast_GET_SIZE(value);
    if (count == 0)
        return put(w, is_object ? "{}" : "[]", 2);
    if (Py_EnterRecursiveCall(" while JSON is written"))
        return -1;
    w->depth++;
    int result = put(w, is_object ? "{" : "[", 1);
    if (result == 0)
        result = is_object ? write_object(w, value) : write_array(w, value);
    w->depth--;
    Py_LeaveRecursiveCall();
    if (result < 0 || new_line(w) < 0)
        return -1;
    return put(w, is_object ? "}" : "]", 1);
}

static int write_value(struct writer *w, PyObject *value)
{
    if (PyUnicode_CheckExact(value))
        return write_string(w, value);
    if (value == Py_None)
        return put(w, "null", 4);
    if (value == Py_True)
        return put(w, "true", 4);
    if (value == Py_False)
        return put(w, "false", 5);
    if (PyLong_CheckExact(value))
        return write_number(w, PyObject_Str(value));
    if (PyFloat_CheckExact(value) && Py_IS_FINITE(PyFloat_AS_DOUBLE(value)))
        return write_number(w, PyObject_Repr(value));
    if (PyDict_CheckExact(value))
        return write_container(w, value, 1);
    if (PyList_CheckExact(value) || PyTuple_CheckExact(value))
        return write_container(w, value, 0);
    PyErr_Format(PyExc_TypeError, "no JSON for %s", Py_TYPE(value)->tp_name);
    return -1;
}

PyObject *write_json(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    Py_ssize_t indent_len = 0;
    const char *indent = count == 2 && PyUnicode_Check(args[1])
                             ? PyUnicode_AsUTF8AndSize(args[1], &indent_len)
                             : "";
    if (count < 1 || count > 2 || !indent) {
        PyErr_SetString(PyExc_TypeError, "write_json(value, indent: str = \"\")");
        return NULL;
    }
    struct writer w = {.space = 1024, .indent = indent, .indent_len = (size_t)indent_len};
    w.text = PyMem_Malloc(w.space);
    if (!w.text)
        return PyErr_NoMemory();
    PyObject *result = write_value(&w, args[0]) == 0 ? PyUnicode_New((Py_ssize_t)w.len, 127) : NULL;
    if (result)
        memcpy(PyUnicode_1BYTE_DATA(result), w.text, w.len);
    PyMem_Free(w.text);
    return result;
}
