/* libFuzzer target: native/reader on any bytes, compared with Python's json module.
 *
 * Each difference in what they accept must have a reason.  If both accept an input, the values must
 * be equal.
 */
#include "../reader/reader.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__asan_default_options(void);

/* An interpreter does not free everything.  tests/test_spec_load.py checks the reader for leaks. */
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

static const char oracle[] =
    "import json, math\n"
    "class Twice(Exception): pass\n"
    "def members(pairs, ours):\n"
    "    found = dict(pairs)\n"
    "    if len(found) != len(pairs): raise Twice\n"
    "    return found if ours else {k: v for k, v in found.items() if v is not None}\n"
    "def texts(value):\n"
    "    if type(value) is dict:\n"
    "        for key, item in value.items():\n"
    "            yield key\n"
    "            yield from texts(item)\n"
    "    elif type(value) is list:\n"
    "        for item in value: yield from texts(item)\n"
    "    elif type(value) is str: yield value\n"
    "def number(kind):\n"
    "    def parse(text):\n"
    "        value = kind(text)\n"
    "        if len(text) > 4300 or not math.isfinite(value): raise ValueError(text)\n"
    "        return value\n"
    "    return parse\n"
    "def expected(data, ours):\n"
    "    text = data.decode('utf-8')\n"
    "    if text.startswith('\\ufeff'): raise ValueError\n"
    "    value = json.loads(text, object_pairs_hook=lambda pairs: members(pairs, ours),\n"
    "                       parse_float=number(float), parse_int=number(int), parse_constant=number(float))\n"
    "    wrong = any(c == '\\0' or '\\ud800' <= c <= '\\udfff' for text in texts(value) for c in text)\n"
    "    if wrong and not ours: raise Twice\n"
    "    return value\n"
    "def check(data, ours, found, error, written):\n"
    "    try:\n"
    "        wanted = expected(data, ours)\n"
    "    except RecursionError:\n"
    "        assert error\n"
    "        return\n"
    "    except (ValueError, Twice) as reason:\n"
    "        assert error and type(error) is tuple and len(error) == 2, (data, found, reason)\n"
    "        if type(error[1]) is str: assert 0 <= error[0] <= len(data), error\n"
    "        else: assert 0 < len(error[0]) <= min(100, error[1]), error\n"
    "        return\n"
    "    assert error is None or error[1] == 'depth', (data, error, wanted)\n"
    "    assert error or repr(found) == repr(wanted), (data, found, wanted)\n"
    "    for text in written:\n"
    "        assert text.isascii() and repr(json.loads(text)) == repr(wanted), (wanted, text)\n";

static PyObject *check;

static void fail(PyObject *type, PyObject *value, PyObject *trace)
{
    if (type)
        PyErr_Restore(type, value, trace);
    PyErr_Print();
    abort();
}

static void start(void)
{
    Py_InitializeEx(0);
    PyObject *names = PyDict_New();
    PyObject *done = names ? PyRun_String(oracle, Py_file_input, names, names) : NULL;
    check = done ? PyDict_GetItemString(names, "check") : NULL;
    if (!check)
        fail(NULL, NULL, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!check)
        start();
    if (size == 0)
        return 0;
    PyObject *ours = PyBool_FromLong(data[0] & 1), *two_blanks = PyUnicode_FromString("  ");
    PyObject *args[] = {PyBytes_FromStringAndSize((const char *)data + 1, (Py_ssize_t)size - 1), ours};
    PyObject *found = read_json(NULL, args, 2), *error = NULL, *type, *trace, *written;
    if (found) {
        PyObject *given[] = {found, two_blanks};
        written = Py_BuildValue("NN", write_json(NULL, given, 1), write_json(NULL, given, 2));
    } else {
        PyErr_Fetch(&type, &error, &trace);
        if (type != PyExc_ValueError)
            fail(type, error, trace);
        PyErr_NormalizeException(&type, &error, &trace); /* as every exception from 3.12 on */
        PyObject *value = error;
        error = PyObject_GetAttrString(value, "args");
        Py_DECREF(value);
        Py_DECREF(type);
        Py_XDECREF(trace);
        written = PyTuple_New(0);
    }
    PyObject *done = written ? PyObject_CallFunction(check, "OOOOO", args[0], ours, found ? found : Py_None,
                                                     error ? error : Py_None, written)
                             : NULL;
    if (!done)
        fail(NULL, NULL, NULL);
    Py_DECREF(done);
    Py_DECREF(written);
    Py_DECREF(two_blanks);
    Py_XDECREF(found);
    Py_XDECREF(error);
    Py_DECREF(args[0]);
    Py_DECREF(ours);
    return 0;
}
