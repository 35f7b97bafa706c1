/* _pyrunc_launcher: the functions of the launcher for pyrunc/interpreter.py. */
#include "launcher.h"

#include "../reader/reader.h"
#include "snapshot/snapshot.h"

int in_core_phase;

int complete_interpreter(void)
{
    if (!in_core_phase)
        return 0;
    PyStatus status = initialize_interpreter(1);
    if (PyStatus_Exception(status)) {
        PyErr_Format(PyExc_ImportError, "cannot complete the interpreter: %s",
                     status.err_msg ? status.err_msg : "exit");
        return -1;
    }
    in_core_phase = 0;
    (void)PyGC_Enable();
    return 0;
}

static PyObject *m_complete(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    if (complete_interpreter() < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *m_in_core(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyBool_FromLong(in_core_phase);
}

static PyObject *m_init_image(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyMemoryView_FromMemory((char *)(uintptr_t)pyrunc_init.data, (Py_ssize_t)pyrunc_init.size,
                                   PyBUF_READ);
}

static PyObject *m_licenses(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyUnicode_DecodeUTF8((const char *)pyrunc_licenses.data, (Py_ssize_t)pyrunc_licenses.size,
                                "replace");
}

static PyObject *m_about(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return Py_BuildValue("sN", LAUNCHER_KIND, PyBool_FromLong(snapshot_state() == SNAPSHOT_READY));
}

static PyObject *m_package_parent(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    const char *dir = package_parent();
    return dir ? PyUnicode_DecodeUTF8(dir, (Py_ssize_t)strlen(dir), "surrogateescape") : NULL;
}

static PyMethodDef methods[] = {
    {"complete", m_complete, METH_NOARGS, "Complete the interpreter after its core phase."},
    {"in_core", m_in_core, METH_NOARGS, "Whether the interpreter is in its core phase."},
    {"init_image", m_init_image, METH_NOARGS, "The container-side program, read-only."},
    {"licenses", m_licenses, METH_NOARGS, "The licences of all parts of the executable, as one text."},
    {"about", m_about, METH_NOARGS, "How the interpreter is linked, and whether it starts from a snapshot."},
    {"package_parent", m_package_parent, METH_NOARGS,
     "The checked directory that holds the installed package."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_pyrunc_launcher", .m_size = -1,
                                        .m_methods = methods};

PyObject *PyInit__pyrunc_launcher(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module && (PyModule_AddFunctions(module, pyrunc_calls) < 0 ||
                   PyModule_AddFunctions(module, pyrunc_reader_calls) < 0))
        Py_CLEAR(module);
    return module;
}
