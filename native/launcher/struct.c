/* Conversion between Python values and C structures, as the builtin module _struct: for an
 * interpreter that has its own as a shared library, whose address cannot be in a snapshot.
 * Formats are those of the standard library's struct.
 */
#include "launcher.h"

#include <ctype.h>
#include <string.h>

static const struct type {
    char code;
    char kind;                      /* i, u: integer, f: float, otherwise the code */
    unsigned char native, standard; /* size; 0: not available */
} types[] = {
    {'x', 'x', 1, 1}, {'c', 'c', 1, 1}, {'s', 's', 1, 1}, {'p', 'p', 1, 1}, {'?', '?', 1, 1},
    {'b', 'i', 1, 1}, {'B', 'u', 1, 1}, {'h', 'i', 2, 2}, {'H', 'u', 2, 2}, {'i', 'i', 4, 4},
    {'I', 'u', 4, 4}, {'l', 'i', 8, 4}, {'L', 'u', 8, 4}, {'q', 'i', 8, 8}, {'Q', 'u', 8, 8},
    {'n', 'i', 8, 0}, {'N', 'u', 8, 0}, {'P', 'u', 8, 0}, {'e', 'f', 2, 2}, {'f', 'f', 4, 4},
    {'d', 'f', 8, 8},
};

/* `count` values of one type; one value for s and p, none for x. */
struct item {
    const struct type *type;
    Py_ssize_t count, offset, size;
};

typedef struct {
    PyObject_VAR_HEAD PyObject *format;
    Py_ssize_t size, values, used; /* used: number of items */
    int little;
    struct item items[];
} Struct;

static PyObject *error;

static PyObject *fail(const char *text)
{
    PyErr_SetString(error, text);
    return NULL;
}

/* Read a repeat count.  Returns -1 if it is too large. */
static Py_ssize_t read_count(const char **text)
{
    Py_ssize_t count = 0;
    if (!isdigit((unsigned char)**text))
        return 1;
    for (; isdigit((unsigned char)**text); (*text)++)
        if (__builtin_mul_overflow(count, 10, &count) || __builtin_add_overflow(count, **text - '0', &count))
            return -1;
    return count;
}

static Py_ssize_t values_of(const struct item *item)
{
    return item->type->kind == 'x' ? 0 : strchr("sp", item->type->kind) ? 1 : item->count;
}

/* Add an item.  Returns the error, or NULL. */
static const char *add_item(Struct *self, char code, Py_ssize_t count, char order)
{
    const struct type *type = types;
    while (type < types + sizeof types / sizeof *types && type->code != code)
        type++;
    Py_ssize_t size = type == types + sizeof types / sizeof *types ? 0
                      : order == '@'                               ? type->native
                                                                   : type->standard;
    if (size == 0)
        return "bad char in struct format";
    Py_ssize_t bytes, offset = order == '@' ? (self->size + size - 1) / size * size : self->size;
    if (count < 0 || __builtin_mul_overflow(count, size, &bytes) ||
        __builtin_add_overflow(offset, bytes, &self->size) || self->size > PY_SSIZE_T_MAX - 8)
        return "total struct size too long";
    struct item *item = &self->items[self->used++];
    *item = (struct item){type, count, offset, size};
    self->values += values_of(item);
    return NULL;
}

static PyTypeObject struct_type;

static Struct *new_struct(PyObject *format)
{
    PyObject *text = PyBytes_Check(format)
                         ? PyUnicode_DecodeASCII(PyBytes_AS_STRING(format), PyBytes_GET_SIZE(format), NULL)
                         : Py_NewRef(format);
    Py_ssize_t length;
    const char *next = text && PyUnicode_Check(text) ? PyUnicode_AsUTF8AndSize(text, &length) : NULL;
    if (!next) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_TypeError, "Struct() argument 1 must be a str or bytes object, not %.200s",
                         Py_TYPE(format)->tp_name);
        Py_XDECREF(text);
        return NULL;
    }
    Struct *self = PyObject_NewVar(Struct, &struct_type, length);
    if (!self) {
        Py_DECREF(text);
        return NULL;
    }
    self->format = text;
    self->size = self->values = self->used = 0;
    const char *end = next + length, *problem = NULL;
    char order = *next && strchr("@=<>!", *next) ? *next++ : '@';
    self->little = order != '>' && order != '!';
    for (; !problem && next < end; next++) {
        if (isspace((unsigned char)*next))
            continue;
        int counted = isdigit((unsigned char)*next) != 0;
        Py_ssize_t count = read_count(&next);
        problem = counted && next == end ? "repeat count given without format specifier"
                                         : add_item(self, *next, count, order);
    }
    if (problem) {
        Py_DECREF(self);
        return (Struct *)fail(problem);
    }
    return self;
}

static void deallocate(PyObject *self)
{
    Py_XDECREF(((Struct *)self)->format);
    PyObject_Free(self);
}

static void store(const Struct *self, unsigned char *to, uint64_t value, Py_ssize_t size)
{
    for (Py_ssize_t i = 0; i < size; i++, value >>= 8)
        to[self->little ? i : size - 1 - i] = (unsigned char)value;
}

static uint64_t load(const Struct *self, const unsigned char *from, Py_ssize_t size)
{
    uint64_t value = 0;
    for (Py_ssize_t i = 0; i < size; i++)
        value = value << 8 | from[self->little ? size - 1 - i : i];
    return value;
}

static int put_integer(const Struct *self, const struct item *item, PyObject *value, unsigned char *to)
{
    PyObject *number = PyNumber_Index(value);
    if (!number) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            (void)fail("required argument is not an integer");
        return -1;
    }
    int overflow = 0, bits = 8 * (int)item->size, fits;
    uint64_t word;
    if (item->type->kind == 'i') {
        long long found = PyLong_AsLongLongAndOverflow(number, &overflow);
        fits = !overflow && (bits == 64 || (found >= -(1LL << (bits - 1)) && found < 1LL << (bits - 1)));
        word = (uint64_t)found;
    } else {
        word = PyLong_AsUnsignedLongLong(number);
        fits = !PyErr_Occurred() && (bits == 64 || word >> bits == 0);
        PyErr_Clear();
    }
    Py_DECREF(number);
    if (!fits) {
        PyErr_Format(error, "'%c' format: argument out of range", item->type->code);
        return -1;
    }
    store(self, to, word, item->size);
    return 0;
}

static int put_float(const Struct *self, const struct item *item, PyObject *value, unsigned char *to)
{
    double number = PyFloat_AsDouble(value);
    if (number == -1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            (void)fail("required argument is not a float");
    } else {
        char *place = (char *)to;
        int done = item->size == 2   ? PyFloat_Pack2(number, place, self->little)
                   : item->size == 4 ? PyFloat_Pack4(number, place, self->little)
                                     : PyFloat_Pack8(number, place, self->little);
        if (done == 0)
            return 0;
    }
    if (PyLong_Check(value) && PyErr_ExceptionMatches(PyExc_OverflowError))
        (void)fail("int too large to convert");
    return -1;
}

static int put_bytes(const struct item *item, PyObject *value, unsigned char *to)
{
    char kind = item->type->kind;
    int is_bytes = PyBytes_Check(value);
    if (!is_bytes && (kind == 'c' || !PyByteArray_Check(value))) {
        PyErr_Format(error, "argument for '%c' must be a bytes object", kind);
        return -1;
    }
    const char *data = is_bytes ? PyBytes_AS_STRING(value) : PyByteArray_AS_STRING(value);
    Py_ssize_t size = is_bytes ? PyBytes_GET_SIZE(value) : PyByteArray_GET_SIZE(value), room = item->count;
    if (kind == 'c') {
        if (size != 1) {
            (void)fail("char format requires a bytes object of length 1");
            return -1;
        }
        *to = (unsigned char)*data;
        return 0;
    }
    if (room > 0 && kind == 'p') { /* the first byte has the length */
        room--;
        size = size < room ? size : room;
        *to++ = (unsigned char)(size < 255 ? size : 255);
    }
    if (room > 0)
        memcpy(to, data, (size_t)(size < room ? size : room));
    return 0;
}

static int put(const Struct *self, const struct item *item, PyObject *value, unsigned char *to)
{
    int truth;
    switch (item->type->kind) {
    case 'i':
    case 'u':
        return put_integer(self, item, value, to);
    case 'f':
        return put_float(self, item, value, to);
    case '?':
        truth = PyObject_IsTrue(value);
        *to = truth > 0;
        return truth < 0 ? -1 : 0;
    default:
        return put_bytes(item, value, to);
    }
}

static int put_all(const Struct *self, PyObject *const *values, Py_ssize_t count, unsigned char *to)
{
    if (count != self->values) {
        PyErr_Format(error, "pack expected %zd items for packing (got %zd)", self->values, count);
        return -1;
    }
    memset(to, 0, (size_t)self->size);
    for (const struct item *item = self->items; item < self->items + self->used; item++)
        for (Py_ssize_t i = 0; i < values_of(item); i++)
            if (put(self, item, *values++, to + item->offset + i * item->size) < 0)
                return -1;
    return 0;
}

static PyObject *get(const Struct *self, const struct item *item, const unsigned char *from)
{
    uint64_t word;
    Py_ssize_t size = item->count;
    const char *text = (const char *)from;
    switch (item->type->kind) {
    case 'i':
        word = load(self, from, item->size) << (64 - 8 * item->size);
        return PyLong_FromLongLong((int64_t)word >> (64 - 8 * item->size));
    case 'u':
        return PyLong_FromUnsignedLongLong(load(self, from, item->size));
    case 'f':
        return PyFloat_FromDouble(item->size == 2   ? PyFloat_Unpack2(text, self->little)
                                  : item->size == 4 ? PyFloat_Unpack4(text, self->little)
                                                    : PyFloat_Unpack8(text, self->little));
    case '?':
        return PyBool_FromLong(*from);
    case 'c':
        return PyBytes_FromStringAndSize(text, 1);
    case 'p':
        size = size == 0 ? 0 : *from < size ? *from : size - 1;
        return PyBytes_FromStringAndSize(text + (item->count > 0), size);
    default:
        return PyBytes_FromStringAndSize(text, size);
    }
}

static PyObject *get_all(const Struct *self, const unsigned char *from)
{
    PyObject *result = PyTuple_New(self->values);
    Py_ssize_t number = 0;
    for (const struct item *item = self->items; result && item < self->items + self->used; item++)
        for (Py_ssize_t i = 0; result && i < values_of(item); i++) {
            PyObject *value = get(self, item, from + item->offset + i * item->size);
            if (value)
                PyTuple_SET_ITEM(result, number++, value);
            else
                Py_CLEAR(result);
        }
    return result;
}

static PyObject *m_pack(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    const Struct *self = (Struct *)object;
    PyObject *result = PyBytes_FromStringAndSize(NULL, self->size);
    if (result && put_all(self, args, count, (unsigned char *)PyBytes_AS_STRING(result)) < 0)
        Py_CLEAR(result);
    return result;
}

/* Check that a structure fits at an offset, which may be negative.  Returns it, or -1. */
static Py_ssize_t place_in(const Struct *self, Py_ssize_t length, Py_ssize_t offset, const char *what)
{
    Py_ssize_t found = offset < 0 ? offset + length : offset;
    if (found >= 0 && found <= length && length - found >= self->size)
        return found;
    PyErr_Format(error,
                 "%s requires a buffer of at least %zd bytes at offset %zd (actual buffer size is %zd)", what,
                 self->size, offset, length);
    return -1;
}

static PyObject *m_pack_into(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    const Struct *self = (Struct *)object;
    Py_buffer view;
    if (count < 2)
        return PyErr_Format(PyExc_TypeError, "pack_into expected buffer and offset arguments");
    Py_ssize_t offset = PyNumber_AsSsize_t(args[1], PyExc_IndexError);
    if ((offset == -1 && PyErr_Occurred()) || PyObject_GetBuffer(args[0], &view, PyBUF_WRITABLE) < 0)
        return NULL;
    offset = place_in(self, view.len, offset, "pack_into");
    int done = offset < 0 ? -1 : put_all(self, args + 2, count - 2, (unsigned char *)view.buf + offset);
    PyBuffer_Release(&view);
    return done < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *m_unpack(PyObject *object, PyObject *buffer)
{
    const Struct *self = (Struct *)object;
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *result = view.len == self->size
                           ? get_all(self, view.buf)
                           : PyErr_Format(error, "unpack requires a buffer of %zd bytes", self->size);
    PyBuffer_Release(&view);
    return result;
}

static PyObject *m_unpack_from(PyObject *object, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"buffer", "offset", NULL};
    const Struct *self = (Struct *)object;
    Py_buffer view;
    Py_ssize_t offset = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "y*|n", names, &view, &offset))
        return NULL;
    offset = place_in(self, view.len, offset, "unpack_from");
    PyObject *result = offset < 0 ? NULL : get_all(self, (unsigned char *)view.buf + offset);
    PyBuffer_Release(&view);
    return result;
}

static PyObject *m_iter_unpack(PyObject *object, PyObject *buffer)
{
    const Struct *self = (Struct *)object;
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *list = NULL, *result = NULL;
    if (self->size == 0 || view.len % self->size)
        (void)PyErr_Format(error, "iterative unpacking requires a buffer of a multiple of %zd bytes",
                           self->size);
    else
        list = PyList_New(view.len / self->size);
    for (Py_ssize_t i = 0; list && i < PyList_GET_SIZE(list); i++) {
        PyObject *values = get_all(self, (unsigned char *)view.buf + i * self->size);
        if (values)
            PyList_SET_ITEM(list, i, values);
        else
            Py_CLEAR(list);
    }
    if (list)
        result = PyObject_GetIter(list);
    Py_XDECREF(list);
    PyBuffer_Release(&view);
    return result;
}

static PyObject *get_format(PyObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(((Struct *)self)->format);
}

static PyObject *get_size(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(((Struct *)self)->size);
}

static PyObject *create(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"format", NULL};
    PyObject *format;
    (void)type;
    return PyArg_ParseTupleAndKeywords(args, keywords, "O", names, &format) ? (PyObject *)new_struct(format)
                                                                            : NULL;
}

#define FUNCTION(FUNC) ((PyCFunction)(void (*)(void))(FUNC))
static PyMethodDef methods[] = {
    {"pack", FUNCTION(m_pack), METH_FASTCALL, NULL},
    {"pack_into", FUNCTION(m_pack_into), METH_FASTCALL, NULL},
    {"unpack", m_unpack, METH_O, NULL},
    {"unpack_from", FUNCTION(m_unpack_from), METH_VARARGS | METH_KEYWORDS, NULL},
    {"iter_unpack", m_iter_unpack, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef members[] = {{"format", get_format, NULL, NULL, NULL},
                                {"size", get_size, NULL, NULL, NULL},
                                {NULL, NULL, NULL, NULL, NULL}};
static PyTypeObject struct_type = {PyVarObject_HEAD_INIT(NULL, 0).tp_name = "_struct.Struct",
                                   .tp_basicsize = sizeof(Struct),
                                   .tp_itemsize = sizeof(struct item),
                                   .tp_flags = Py_TPFLAGS_DEFAULT,
                                   .tp_new = create,
                                   .tp_dealloc = deallocate,
                                   .tp_methods = methods,
                                   .tp_getset = members};

/* A function NAME(format, ...) is the method NAME of Struct(format). */
static PyObject *call(const char *name, PyObject *args, PyObject *keywords)
{
    PyObject *format = PyTuple_GET_SIZE(args) > 0 ? PyTuple_GET_ITEM(args, 0) : NULL;
    if (!format)
        return PyErr_Format(PyExc_TypeError, "%s() needs a format", name);
    Struct *layout = new_struct(format);
    PyObject *method = layout ? PyObject_GetAttrString((PyObject *)layout, name) : NULL;
    PyObject *rest = method ? PyTuple_GetSlice(args, 1, PyTuple_GET_SIZE(args)) : NULL;
    PyObject *result = rest ? PyObject_Call(method, rest, keywords) : NULL;
    Py_XDECREF(rest);
    Py_XDECREF(method);
    Py_XDECREF(layout);
    return result;
}

#define CALL(NAME)                                                                  \
    static PyObject *f_##NAME(PyObject *module, PyObject *args, PyObject *keywords) \
    {                                                                               \
        (void)module;                                                               \
        return call(#NAME, args, keywords);                                         \
    }
CALL(pack_into)
CALL(unpack_from)

static PyObject *f_pack(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count < 1)
        return PyErr_Format(PyExc_TypeError, "pack expected at least 1 argument, got 0");
    Struct *layout = new_struct(args[0]);
    PyObject *result = layout ? m_pack((PyObject *)layout, args + 1, count - 1) : NULL;
    Py_XDECREF(layout);
    return result;
}

static PyObject *two(const char *name, PyObject *const *args, Py_ssize_t count, PyCFunction method)
{
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "%s expected 2 arguments, got %zd", name, count);
    Struct *layout = new_struct(args[0]);
    PyObject *result = layout ? method((PyObject *)layout, args[1]) : NULL;
    Py_XDECREF(layout);
    return result;
}

static PyObject *f_unpack(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    return two("unpack", args, count, m_unpack);
}

static PyObject *f_iter_unpack(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    return two("iter_unpack", args, count, m_iter_unpack);
}

static PyObject *f_calcsize(PyObject *module, PyObject *format)
{
    (void)module;
    Struct *layout = new_struct(format);
    PyObject *result = layout ? PyLong_FromSsize_t(layout->size) : NULL;
    Py_XDECREF(layout);
    return result;
}

/* Nothing is cached. */
static PyObject *f_clearcache(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"calcsize", f_calcsize, METH_O, NULL},
    {"pack", FUNCTION(f_pack), METH_FASTCALL, NULL},
    {"pack_into", FUNCTION(f_pack_into), METH_VARARGS | METH_KEYWORDS, NULL},
    {"unpack", FUNCTION(f_unpack), METH_FASTCALL, NULL},
    {"unpack_from", FUNCTION(f_unpack_from), METH_VARARGS | METH_KEYWORDS, NULL},
    {"iter_unpack", FUNCTION(f_iter_unpack), METH_FASTCALL, NULL},
    {"_clearcache", f_clearcache, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_struct", .m_doc = "", .m_size = -1,
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit__struct(void)
{
    error = PyErr_NewException("struct.error", NULL, NULL);
    PyObject *module = error && PyType_Ready(&struct_type) == 0 ? PyModule_Create(&definition) : NULL;
    if (module && (PyModule_AddObjectRef(module, "error", error) < 0 ||
                   PyModule_AddObjectRef(module, "Struct", (PyObject *)&struct_type) < 0))
        Py_CLEAR(module);
    return module;
}
