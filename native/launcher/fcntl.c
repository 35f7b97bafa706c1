/* fcntl(2), ioctl(2) and flock(2), as the builtin module fcntl: for an interpreter that has its own
 * as a shared library, whose address cannot be in a snapshot.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>

enum { ROOM = 1024 }; /* for an argument that is copied */

enum call { FCNTL, IOCTL, FLOCK };

static int repeat(enum call call, int fd, unsigned long command, void *argument)
{
    int result, interrupted;
    do {
        Py_BEGIN_ALLOW_THREADS;
        result = call == FCNTL   ? fcntl(fd, (int)command, argument)
                 : call == IOCTL ? ioctl(fd, command, argument)
                                 : flock(fd, (int)command);
        Py_END_ALLOW_THREADS;
        interrupted = result < 0 && errno == EINTR;
    } while (interrupted && PyErr_CheckSignals() == 0);
    if (result < 0 && !interrupted)
        PyErr_SetFromErrno(PyExc_OSError);
    return result;
}

static PyObject *as_number(int result)
{
    return result < 0 ? NULL : PyLong_FromLong(result);
}

/* Call with a buffer: writable memory is changed, other memory is copied, and the copy returned. */
static PyObject *with_buffer(enum call call, int fd, unsigned long command, PyObject *object, int change)
{
    Py_buffer view;
    char copy[ROOM];
    if (change && PyObject_GetBuffer(object, &view, PyBUF_WRITABLE) == 0) {
        int result = repeat(call, fd, command, view.buf);
        PyBuffer_Release(&view);
        return as_number(result);
    }
    PyErr_Clear();
    if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    size_t size = (size_t)view.len;
    if (size <= sizeof copy)
        memcpy(copy, view.buf, size);
    PyBuffer_Release(&view);
    if (size > sizeof copy) {
        PyErr_SetString(PyExc_ValueError, "the argument is too long");
        return NULL;
    }
    return repeat(call, fd, command, copy) < 0 ? NULL : PyBytes_FromStringAndSize(copy, (Py_ssize_t)size);
}

static PyObject *with_argument(enum call call, PyObject *args)
{
    PyObject *file, *argument = NULL;
    unsigned long command;
    int change = 1;
    if (!PyArg_ParseTuple(args, call == IOCTL ? "Ok|Op" : "Ok|O", &file, &command, &argument, &change))
        return NULL;
    int fd = PyObject_AsFileDescriptor(file);
    if (fd < 0)
        return NULL;
    if (argument && !PyIndex_Check(argument))
        return with_buffer(call, fd, command, argument, call == IOCTL && change);
    unsigned long value = argument ? PyLong_AsUnsignedLongMask(argument) : 0;
    if (PyErr_Occurred())
        return NULL;
    return as_number(repeat(call, fd, command, (void *)(uintptr_t)value));
}

static PyObject *f_fcntl(PyObject *module, PyObject *args)
{
    (void)module;
    return with_argument(FCNTL, args);
}

static PyObject *f_ioctl(PyObject *module, PyObject *args)
{
    (void)module;
    return with_argument(IOCTL, args);
}

static PyObject *f_flock(PyObject *module, PyObject *args)
{
    PyObject *file;
    int operation;
    (void)module;
    if (!PyArg_ParseTuple(args, "Oi", &file, &operation))
        return NULL;
    int fd = PyObject_AsFileDescriptor(file);
    if (fd < 0 || repeat(FLOCK, fd, (unsigned long)operation, NULL) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"fcntl", f_fcntl, METH_VARARGS, NULL},
    {"ioctl", f_ioctl, METH_VARARGS, NULL},
    {"flock", f_flock, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

#define CONSTANT(NAME) \
    {                  \
#NAME, NAME    \
    }
static const struct {
    const char *name;
    int value;
} constants[] = {
    CONSTANT(LOCK_SH),      CONSTANT(LOCK_EX),         CONSTANT(LOCK_NB),     CONSTANT(LOCK_UN),
    CONSTANT(F_DUPFD),      CONSTANT(F_DUPFD_CLOEXEC), CONSTANT(F_GETFD),     CONSTANT(F_SETFD),
    CONSTANT(F_GETFL),      CONSTANT(F_SETFL),         CONSTANT(F_GETLK),     CONSTANT(F_SETLK),
    CONSTANT(F_SETLKW),     CONSTANT(F_ADD_SEALS),     CONSTANT(F_GET_SEALS), CONSTANT(F_GETPIPE_SZ),
    CONSTANT(F_SETPIPE_SZ), CONSTANT(FD_CLOEXEC),
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "fcntl", .m_size = -1,
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit_fcntl(void)
{
    PyObject *module = PyModule_Create(&definition);
    for (size_t i = 0; module && i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            Py_CLEAR(module);
    return module;
}
