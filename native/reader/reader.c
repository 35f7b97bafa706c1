/* The reader: see reader.h. */
#include "reader.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum {
    RECENT = 64,      /* keys that are cached: "destination" occurs once per mount */
    KEY_LONGEST = 32, /* of those */
    CROWD = 128,      /* fewer members are not checked for collisions: 128 that all collide cost 20 us */
    KEY = 1,          /* what `read_string` reads */
    TEXT = 0,
};

struct frame {
    size_t first; /* index of the first value */
    size_t nulls; /* how many members are null */
    int is_object;
};

struct reader {
    const unsigned char *start, *at, *end; /* *end is a NUL, which ends loops */
    int ours;                              /* a file written by pyrunc: see _reader.pyi */
    /* The complete values of incomplete containers; for objects also the keys. */
    PyObject **values;
    size_t count, space;
    struct frame frames[READER_DEPTH];
    size_t depth;
    size_t left; /* how many more values are accepted */
    PyObject *recent[RECENT];
    PyObject *faults; /* problems of the content, or NULL */
    size_t fault_count;
};

/* Keywords for malformed input; pyrunc/spec/load.py has the messages. */
static PyObject *malformed(struct reader *r, const unsigned char *at, const char *word)
{
    PyObject *args = Py_BuildValue("ns", (Py_ssize_t)(at - r->start), word);
    if (args) {
        PyErr_SetObject(PyExc_ValueError, args);
        Py_DECREF(args);
    }
    return NULL;
}

static int refuse(struct reader *r, const unsigned char *at, const char *word)
{
    (void)malformed(r, at, word);
    return -1;
}

/* Faults of the content ------------------------------------------------------------------------ */

/* The keys and indexes that lead to the frame at `depth`. */
static PyObject *path_to(const struct reader *r, size_t depth)
{
    PyObject *path = PyList_New(0);
    for (size_t i = 1; path && i <= depth; i++) {
        const struct frame *outer = &r->frames[i - 1];
        size_t after = i < r->depth ? r->frames[i].first : r->count;
        PyObject *step = outer->is_object ? Py_NewRef(r->values[after - 1])
                                          : PyLong_FromSize_t(after - outer->first);
        if (!step || PyList_Append(path, step) < 0)
            Py_CLEAR(path);
        Py_XDECREF(step);
    }
    return path;
}

/* Record (path, kind, found): the path leads to the frame at `depth`, or to a key in it if there
 * is one. 0, or -1 with an exception set. */
static int fault(struct reader *r, size_t depth, PyObject *key, const char *kind, PyObject *found)
{
    if (r->fault_count++ >= READER_FAULTS)
        return 0;
    int result = -1;
    PyObject *path = path_to(r, depth);
    if (!r->faults)
        r->faults = PyList_New(0);
    if (path && r->faults && (!key || PyList_Append(path, key) == 0)) {
        PyObject *entry = Py_BuildValue("OsO", path, kind, found);
        result = entry ? PyList_Append(r->faults, entry) : -1;
        Py_XDECREF(entry);
    }
    Py_XDECREF(path);
    return result;
}

/* Strings -------------------------------------------------------------------------------------- */

static int is_hex(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static unsigned int hex4(PyObject *text, Py_ssize_t at)
{
    unsigned int value = 0;
    for (Py_ssize_t i = at; i < at + 4; i++) {
        Py_UCS4 c = PyUnicode_READ_CHAR(text, i);
        value = value * 16 + (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return value;
}

/* `raw` with its escapes, which are well-formed, replaced. */
static PyObject *unescape(PyObject *raw)
{
    static const char letters[] = "bfnrt", meant[] = "\b\f\n\r\t";
    Py_ssize_t len = PyUnicode_GET_LENGTH(raw), out = 0;
    Py_UCS4 *text = PyMem_New(Py_UCS4, (size_t)len);
    if (!text)
        return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < len; i++) {
        Py_UCS4 c = PyUnicode_READ_CHAR(raw, i);
        if (c == '\\') {
            c = PyUnicode_READ_CHAR(raw, ++i);
            const char *letter = strchr(letters, (int)c);
            if (c == 'u') {
                c = hex4(raw, i + 1);
                i += 4;
            } else if (letter) {
                c = (unsigned char)meant[letter - letters];
            }
        }
        /* Two halves of a surrogate pair are one character if both are escaped: raw ones are not
         * UTF-8. */
        if (c >= 0xDC00 && c <= 0xDFFF && out > 0 && text[out - 1] >= 0xD800 && text[out - 1] <= 0xDBFF)
            text[out - 1] = 0x10000 + ((text[out - 1] - 0xD800) << 10) + (c - 0xDC00);
        else
            text[out++] = c;
    }
    PyObject *result = PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, text, out);
    PyMem_Free(text);
    return result;
}

/* "U+XXXX" of a character that cannot be used, or NULL: C would truncate a string at U+0000, and
 * a lone surrogate would become a byte that is not UTF-8. */
static PyObject *wrong_character(PyObject *text)
{
    for (Py_ssize_t i = 0; i < PyUnicode_GET_LENGTH(text); i++) {
        Py_UCS4 c = PyUnicode_READ_CHAR(text, i);
        if (c == 0 || (c >= 0xD800 && c <= 0xDFFF)) {
            char name[8];
            PyOS_snprintf(name, sizeof name, "U+%04X", (unsigned int)c);
            return PyUnicode_FromString(name);
        }
    }
    return NULL;
}

static int check_characters(struct reader *r, PyObject *text, int kind)
{
    PyObject *wrong = r->ours ? NULL : wrong_character(text);
    if (!wrong)
        return PyErr_Occurred() ? -1 : 0;
    int result = kind == KEY ? fault(r, r->depth - 1, text, "key", wrong)
                             : fault(r, r->depth, NULL, "text", wrong);
    Py_DECREF(wrong);
    return result;
}

/* The last character of the escape whose backslash is at `at`; NULL with an exception set. */
static const unsigned char *escape_end(struct reader *r, const unsigned char *at)
{
    const unsigned char *letter = at + 1;
    if (letter == r->end)
        (void)malformed(r, r->at - 1, "open");
    else if (*letter == '\0' || !strchr("\"\\/bfnrtu", *letter))
        (void)malformed(r, at, "escape");
    else if (*letter != 'u')
        return letter;
    else if (is_hex(letter[1]) && is_hex(letter[2]) && is_hex(letter[3]) && is_hex(letter[4]))
        return letter + 4; /* the NUL at the end is not a digit: nothing after it is read */
    else
        (void)malformed(r, letter, "hex");
    return NULL;
}

/* The closing quote; NULL with an exception set. *escaped and *ascii describe the text before
 * it. */
static const unsigned char *string_end(struct reader *r, int *escaped, int *ascii)
{
    const unsigned char *at = r->at;
    unsigned char seen = 0;
    *escaped = 0;
    for (;; at++) {
        while (*at != '"' && *at != '\\' && *at >= 0x20)
            seen |= *at++;
        *ascii = seen < 0x80;
        if (*at == '"')
            return at;
        if (*at != '\\') {
            (void)malformed(r, at == r->end ? r->at - 1 : at, at == r->end ? "open" : "control");
            return NULL;
        }
        *escaped = 1;
        at = escape_end(r, at);
        if (!at)
            return NULL;
    }
}

static PyObject *ascii_string(const unsigned char *text, size_t len)
{
    PyObject *result = PyUnicode_New((Py_ssize_t)len, 127);
    if (result && len > 0)
        memcpy(PyUnicode_1BYTE_DATA(result), text, len);
    return result;
}

/* A short, plain key; the cached object if there is one. */
static PyObject *plain_key(struct reader *r, const unsigned char *text, size_t len)
{
    if (len == 0 || len > KEY_LONGEST)
        return ascii_string(text, len);
    size_t number = len * 7 + (size_t)text[0] * 5 + (size_t)text[len - 1] * 3 + text[len / 2];
    PyObject **place = &r->recent[number % RECENT];
    if (*place && (size_t)PyUnicode_GET_LENGTH(*place) == len &&
        memcmp(PyUnicode_1BYTE_DATA(*place), text, len) == 0)
        return Py_NewRef(*place);
    PyObject *made = ascii_string(text, len);
    if (made)
        Py_XSETREF(*place, Py_NewRef(made));
    return made;
}

/* The string after an opening quote. */
static PyObject *read_string(struct reader *r, int kind)
{
    int escaped, ascii;
    const unsigned char *text = r->at, *close = string_end(r, &escaped, &ascii);
    if (!close)
        return NULL;
    size_t len = (size_t)(close - text);
    r->at = close + 1;
    if (ascii && !escaped)
        return kind == KEY ? plain_key(r, text, len) : ascii_string(text, len);
    PyObject *result = ascii ? ascii_string(text, len)
                             : PyUnicode_DecodeUTF8((const char *)text, (Py_ssize_t)len, "strict");
    if (!result && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        return malformed(r, text, "utf-8");
    }
    if (result && escaped) {
        Py_SETREF(result, unescape(result));
        if (result && check_characters(r, result, kind) < 0)
            Py_CLEAR(result);
    }
    return result;
}

/* Numbers and words ---------------------------------------------------------------------------- */

static const unsigned char *skip_digits(const unsigned char *at)
{
    while (*at >= '0' && *at <= '9')
        at++;
    return at;
}

static PyObject *long_integer(const unsigned char *from, const unsigned char *to)
{
    char digits[READER_DIGITS + 2];
    size_t len = (size_t)(to - from);
    memcpy(digits, from, len);
    digits[len] = '\0';
    return PyLong_FromString(digits, NULL, 10);
}

static PyObject *read_number(struct reader *r)
{
    const unsigned char *from = r->at, *digits = from + (*from == '-'), *to;
    int is_float = 0;
    if (*digits < '0' || *digits > '9')
        return malformed(r, from, *digits == 'I' ? "constant" : "value");
    to = *digits == '0' ? digits + 1 : skip_digits(digits);
    size_t whole = (size_t)(to - digits);
    if (to[0] == '.' && to[1] >= '0' && to[1] <= '9') {
        to = skip_digits(to + 1);
        is_float = 1;
    }
    if (*to == 'e' || *to == 'E') {
        const unsigned char *power = to + 1 + (to[1] == '+' || to[1] == '-');
        if (*power >= '0' && *power <= '9') {
            to = skip_digits(power);
            is_float = 1;
        }
    }
    if (to - from > READER_DIGITS)
        return malformed(r, from, "digits");
    r->at = to;
    if (is_float) {
        char *parsed;
        double value = PyOS_string_to_double((const char *)from, &parsed, NULL);
        if (value == -1.0 && PyErr_Occurred())
            return NULL;
        return isfinite(value) ? PyFloat_FromDouble(value) : malformed(r, from, "constant");
    }
    if (whole > 18)
        return long_integer(from, to);
    long long value = 0;
    for (const unsigned char *at = digits; at < to; at++)
        value = value * 10 + (*at - '0');
    return PyLong_FromLongLong(digits == from ? value : -value);
}

static PyObject *read_word(struct reader *r)
{
    static const struct {
        const char *text;
        size_t len;
        PyObject *meant; /* NULL: valid in JavaScript but not in JSON */
    } words[] = {{"true", 4, Py_True},
                 {"false", 5, Py_False},
                 {"null", 4, Py_None},
                 {"NaN", 3, NULL},
                 {"Infinity", 8, NULL}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strncmp((const char *)r->at, words[i].text, words[i].len) != 0)
            continue;
        if (!words[i].meant)
            return malformed(r, r->at, "constant");
        r->at += words[i].len;
        return Py_NewRef(words[i].meant);
    }
    return malformed(r, r->at, "value");
}

/* Arrays and objects --------------------------------------------------------------------------- */

static int push(struct reader *r, PyObject *value)
{
    if (!value)
        return -1;
    if (r->count == r->space) {
        size_t space = r->space * 2;
        PyObject **values = PyMem_Realloc(r->values, space * sizeof(PyObject *));
        if (!values) {
            Py_DECREF(value);
            PyErr_NoMemory();
            return -1;
        }
        r->values = values;
        r->space = space;
    }
    r->values[r->count++] = value;
    return 0;
}

static void raise_faults(struct reader *r)
{
    PyObject *args = Py_BuildValue("On", r->faults, (Py_ssize_t)r->fault_count);
    if (args) {
        PyErr_SetObject(PyExc_ValueError, args);
        Py_DECREF(args);
    }
    Py_CLEAR(r->faults);
}

/* Stop here: every use of such keys is slow. */
static PyObject *raise_crowd(struct reader *r, size_t members)
{
    PyObject *number = PyLong_FromSize_t(members);
    Py_CLEAR(r->faults);
    r->fault_count = 0;
    if (number && fault(r, r->depth - 1, NULL, "crowd", number) == 0)
        raise_faults(r);
    Py_XDECREF(number);
    return NULL;
}

/* A null member counts as absent, as in every runtime that decodes into a struct. */
static int drop_nulls(PyObject *dict, PyObject *const *pairs, size_t count)
{
    for (size_t i = 0; i < count; i += 2)
        if (pairs[i + 1] == Py_None && PyDict_GetItemWithError(dict, pairs[i]) == Py_None &&
            PyDict_DelItem(dict, pairs[i]) < 0)
            return -1;
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *make_object(struct reader *r, const struct frame *frame)
{
    PyObject *const *pairs = r->values + frame->first;
    size_t count = r->count - frame->first;
    if (count / 2 > CROWD) {
        int crowd = keys_crowd(pairs, count / 2, 2);
        if (crowd < 0)
            return NULL;
        if (crowd)
            return raise_crowd(r, count / 2);
    }
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict && i < count; i += 2) {
        Py_ssize_t before = PyDict_GET_SIZE(dict);
        if (PyDict_SetItem(dict, pairs[i], pairs[i + 1]) < 0 ||
            (PyDict_GET_SIZE(dict) == before && fault(r, r->depth - 1, pairs[i], "duplicate", Py_None) < 0))
            Py_CLEAR(dict);
    }
    if (dict && frame->nulls && !r->ours && drop_nulls(dict, pairs, count) < 0)
        Py_CLEAR(dict);
    return dict;
}

/* Replace the values of the container that ends here with the container. */
static int close_container(struct reader *r)
{
    struct frame *frame = &r->frames[r->depth - 1];
    size_t first = frame->first, count = r->count - first;
    PyObject *made;
    if (frame->is_object) {
        made = make_object(r, frame);
        if (!made)
            return -1;
        for (size_t i = 0; i < count; i++)
            Py_DECREF(r->values[first + i]);
    } else {
        made = PyList_New((Py_ssize_t)count);
        if (!made)
            return -1;
        for (size_t i = 0; i < count; i++)
            PyList_SET_ITEM(made, (Py_ssize_t)i, r->values[first + i]);
    }
    r->count = first;
    r->depth--;
    return push(r, made);
}

static void skip_blanks(struct reader *r)
{
    while (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')
        r->at++;
}

/* `"key":` */
static int read_key(struct reader *r)
{
    skip_blanks(r);
    if (*r->at != '"')
        return refuse(r, r->at, "key");
    r->at++;
    if (push(r, read_string(r, KEY)) < 0)
        return -1;
    skip_blanks(r);
    if (*r->at != ':')
        return refuse(r, r->at, "colon");
    r->at++;
    return 0;
}

/* Open a container.  1: a value follows; 0: it is empty and closed. */
static int open_container(struct reader *r, int is_object)
{
    if (r->depth == READER_DEPTH)
        return refuse(r, r->at, "depth");
    r->frames[r->depth++] = (struct frame){.first = r->count, .is_object = is_object};
    r->at++;
    skip_blanks(r);
    if (*r->at == (is_object ? '}' : ']')) {
        r->at++;
        return close_container(r);
    }
    return is_object && read_key(r) < 0 ? -1 : 1;
}

/* Start a value.  1: a container was opened; 0: the value is complete. */
static int read_value(struct reader *r)
{
    skip_blanks(r);
    if (r->left-- == 0 && !r->ours)
        return refuse(r, r->at, "values");
    switch (*r->at) {
    case '"':
        r->at++;
        return push(r, read_string(r, TEXT));
    case '{':
    case '[':
        return open_container(r, *r->at == '{');
    case '-':
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9':
        return push(r, read_number(r));
    default:
        return push(r, read_word(r));
    }
}

/* After a value: 1 if another one of the same container follows, 0 at the end of the document. */
static int after_value(struct reader *r)
{
    while (r->depth > 0) {
        struct frame *frame = &r->frames[r->depth - 1];
        frame->nulls += r->values[r->count - 1] == Py_None;
        unsigned char close = frame->is_object ? '}' : ']';
        skip_blanks(r);
        if (*r->at == ',') {
            const unsigned char *comma = r->at++;
            skip_blanks(r);
            if (*r->at == close)
                return refuse(r, comma, frame->is_object ? "comma}" : "comma]");
            return frame->is_object && read_key(r) < 0 ? -1 : 1;
        }
        if (*r->at != close)
            return refuse(r, r->at, "comma");
        r->at++;
        if (close_container(r) < 0)
            return -1;
    }
    skip_blanks(r);
    if (r->at != r->end)
        return refuse(r, r->at, "end");
    return 0;
}

static int read_document(struct reader *r)
{
    for (;;) {
        int more = read_value(r);
        if (more == 0)
            more = after_value(r);
        if (more <= 0)
            return more;
    }
}

PyObject *read_json(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    if (count < 1 || count > 2 || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "read_json(data: bytes, ours: bool = False)");
        return NULL;
    }
    struct reader r = {.start = (const unsigned char *)PyBytes_AS_STRING(args[0]), .space = 256};
    r.at = r.start;
    r.end = r.start + PyBytes_GET_SIZE(args[0]);
    r.ours = count == 2 && args[1] == Py_True;
    r.left = READER_VALUES;
    r.values = PyMem_New(PyObject *, r.space);
    if (!r.values)
        return PyErr_NoMemory();
    PyObject *result = NULL;
    if (read_document(&r) == 0)
        result = r.values[--r.count];
    while (r.count > 0)
        Py_DECREF(r.values[--r.count]);
    for (size_t i = 0; i < RECENT; i++)
        Py_XDECREF(r.recent[i]);
    PyMem_Free(r.values);
    if (result && r.faults) {
        Py_CLEAR(result);
        raise_faults(&r);
    }
    Py_XDECREF(r.faults); /* malformed input is reported before them */
    return result;
}

PyMethodDef pyrunc_reader_calls[] = {
    {"read_json", (PyCFunction)(void (*)(void))read_json, METH_FASTCALL, NULL},
    {"write_json", (PyCFunction)(void (*)(void))write_json, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};
