/* poll(2), as the builtin module select: for an interpreter that has its own as a shared library,
 * whose address cannot be in a snapshot.
 */
#include "launcher.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <time.h>

typedef struct {
    PyObject_HEAD struct pollfd *fds;
    Py_ssize_t count, room;
    int running;
} Poll;

static void deallocate(PyObject *self)
{
    PyMem_Free(((Poll *)self)->fds);
    PyObject_Free(self);
}

static struct pollfd *find(const Poll *self, int fd)
{
    for (Py_ssize_t i = 0; i < self->count; i++)
        if (self->fds[i].fd == fd)
            return &self->fds[i];
    return NULL;
}

static int add(Poll *self, int fd, unsigned short events)
{
    struct pollfd *place = find(self, fd);
    if (!place && self->count == self->room) {
        Py_ssize_t room = 2 * self->room + 4;
        struct pollfd *larger = PyMem_Realloc(self->fds, (size_t)room * sizeof *larger);
        if (!larger) {
            (void)PyErr_NoMemory();
            return -1;
        }
        self->fds = larger;
        self->room = room;
    }
    if (!place)
        place = &self->fds[self->count++];
    *place = (struct pollfd){.fd = fd, .events = (short)events};
    return 0;
}

/* The memory that poll(2) uses must not move. */
static int is_running(const Poll *self)
{
    if (self->running)
        PyErr_SetString(PyExc_RuntimeError, "concurrent poll() invocation");
    return self->running;
}

static PyObject *change(PyObject *object, PyObject *args, int known)
{
    Poll *self = (Poll *)object;
    PyObject *file;
    unsigned short events = POLLIN | POLLPRI | POLLOUT;
    if (is_running(self) || !PyArg_ParseTuple(args, "O|H", &file, &events))
        return NULL;
    int fd = PyObject_AsFileDescriptor(file);
    if (fd < 0)
        return NULL;
    if (known && !find(self, fd)) {
        errno = ENOENT;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return add(self, fd, events) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *m_register(PyObject *self, PyObject *args)
{
    return change(self, args, 0);
}

static PyObject *m_modify(PyObject *self, PyObject *args)
{
    return change(self, args, 1);
}

static PyObject *m_unregister(PyObject *object, PyObject *file)
{
    Poll *self = (Poll *)object;
    int fd = is_running(self) ? -1 : PyObject_AsFileDescriptor(file);
    if (fd < 0)
        return NULL;
    struct pollfd *place = find(self, fd);
    if (!place) {
        PyErr_SetObject(PyExc_KeyError, file);
        return NULL;
    }
    for (self->count--; place < self->fds + self->count; place++)
        *place = place[1];
    Py_RETURN_NONE;
}

static int64_t now(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Wait for events.  A negative time means forever.  Returns -1 with an exception set. */
static int wait_for(Poll *self, int64_t milliseconds)
{
    int64_t end = now() + milliseconds, left = milliseconds;
    for (;;) {
        int result, timeout = left < 0 ? -1 : left > INT_MAX ? INT_MAX : (int)left;
        self->running = 1;
        Py_BEGIN_ALLOW_THREADS;
        result = poll(self->fds, (nfds_t)self->count, timeout);
        Py_END_ALLOW_THREADS;
        self->running = 0;
        if (result >= 0)
            return result;
        if (errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (PyErr_CheckSignals() < 0)
            return -1;
        left = milliseconds < 0 ? -1 : end > now() ? end - now() : 0;
    }
}

/* Round up to milliseconds: to wait for less than asked for would be a busy loop. */
static int read_time(PyObject *value, double factor, int64_t *milliseconds)
{
    *milliseconds = -1;
    if (value == Py_None)
        return 0;
    double time = PyFloat_AsDouble(value) * factor;
    if (PyErr_Occurred())
        return -1;
    if (!(time < 1e15)) {
        PyErr_SetString(PyExc_OverflowError, "timeout is too large");
        return -1;
    }
    *milliseconds = time < 0 ? -1 : (int64_t)ceil(time);
    return 0;
}

static PyObject *m_poll(PyObject *object, PyObject *args)
{
    Poll *self = (Poll *)object;
    PyObject *given = Py_None;
    int64_t milliseconds;
    if (is_running(self) || !PyArg_ParseTuple(args, "|O", &given) || read_time(given, 1, &milliseconds) < 0)
        return NULL;
    int ready = wait_for(self, milliseconds);
    PyObject *list = ready < 0 ? NULL : PyList_New(0);
    for (Py_ssize_t i = 0; list && ready > 0 && i < self->count; i++) {
        if (!self->fds[i].revents)
            continue;
        PyObject *pair = Py_BuildValue("iH", self->fds[i].fd, (unsigned short)self->fds[i].revents);
        if (!pair || PyList_Append(list, pair) < 0)
            Py_CLEAR(list);
        Py_XDECREF(pair);
    }
    return list;
}

static PyMethodDef methods[] = {
    {"register", m_register, METH_VARARGS, NULL},
    {"modify", m_modify, METH_VARARGS, NULL},
    {"unregister", m_unregister, METH_O, NULL},
    {"poll", m_poll, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyTypeObject poll_type = {PyVarObject_HEAD_INIT(NULL, 0).tp_name = "select.poll",
                                 .tp_basicsize = sizeof(Poll),
                                 .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                 .tp_dealloc = deallocate, .tp_methods = methods};

static Poll *new_poll(void)
{
    Poll *self = PyObject_New(Poll, &poll_type);
    if (self) {
        self->fds = NULL;
        self->count = self->room = 0;
        self->running = 0;
    }
    return self;
}

static PyObject *f_poll(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return (PyObject *)new_poll();
}

enum { LISTS = 3 };
static const unsigned short wanted[LISTS] = {POLLIN, POLLOUT, POLLPRI};
static const unsigned short found[LISTS] = {POLLIN | POLLHUP | POLLERR, POLLOUT | POLLERR, POLLPRI};

/* Add the files of one list to those of the others. */
static int add_list(Poll *self, PyObject *list, unsigned short events)
{
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(list); i++) {
        int fd = PyObject_AsFileDescriptor(PySequence_Fast_GET_ITEM(list, i));
        const struct pollfd *known = fd < 0 ? NULL : find(self, fd);
        if (fd < 0 || add(self, fd, known ? (unsigned short)known->events | events : events) < 0)
            return -1;
    }
    return 0;
}

static PyObject *ready_of(const Poll *self, PyObject *list, unsigned short events)
{
    PyObject *result = PyList_New(0);
    for (Py_ssize_t i = 0; result && i < PySequence_Fast_GET_SIZE(list); i++) {
        PyObject *file = PySequence_Fast_GET_ITEM(list, i);
        const struct pollfd *known = find(self, PyObject_AsFileDescriptor(file));
        if (PyErr_Occurred() || (known && known->revents & events && PyList_Append(result, file) < 0))
            Py_CLEAR(result);
    }
    return result;
}

/* select(2) with poll(2), for modules of the standard library. */
static PyObject *f_select(PyObject *module, PyObject *args)
{
    PyObject *given[LISTS], *lists[LISTS] = {NULL}, *time = Py_None, *result = NULL;
    int64_t milliseconds;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOO|O", &given[0], &given[1], &given[2], &time) ||
        read_time(time, 1000, &milliseconds) < 0)
        return NULL;
    Poll *self = new_poll();
    int fine = self != NULL;
    for (int i = 0; fine && i < LISTS; i++) {
        lists[i] = PySequence_Fast(given[i], "arguments 1-3 must be sequences");
        fine = lists[i] && add_list(self, lists[i], wanted[i]) == 0;
    }
    if (fine && wait_for(self, milliseconds) >= 0)
        result = PyTuple_New(LISTS);
    for (int i = 0; result && i < LISTS; i++) {
        PyObject *ready = ready_of(self, lists[i], found[i]);
        if (ready)
            PyTuple_SET_ITEM(result, i, ready);
        else
            Py_CLEAR(result);
    }
    for (int i = 0; i < LISTS; i++)
        Py_XDECREF(lists[i]);
    Py_XDECREF(self);
    return result;
}

static PyMethodDef functions[] = {
    {"poll", f_poll, METH_NOARGS, NULL},
    {"select", f_select, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "select", .m_size = -1,
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit_select(void)
{
    static const struct {
        const char *name;
        int value;
    } constants[] = {{"POLLIN", POLLIN},   {"POLLPRI", POLLPRI}, {"POLLOUT", POLLOUT},
                     {"POLLERR", POLLERR}, {"POLLHUP", POLLHUP}, {"POLLNVAL", POLLNVAL}};
    PyObject *module = PyType_Ready(&poll_type) < 0 ? NULL : PyModule_Create(&definition);
    for (size_t i = 0; module && i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            Py_CLEAR(module);
    if (module && PyModule_AddObjectRef(module, "error", PyExc_OSError) < 0)
        Py_CLEAR(module);
    return module;
}
