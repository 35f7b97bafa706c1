/* Extension modules of the standard library without importlib's path finder, and where the package is. */
#include "launcher.h"

#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "package_path.h"

static char parent_dir[PATH_MAX];

static int check(const char *path, size_t from)
{
    char culprit[PATH_MAX], hint[PATH_MAX + 32];
    memcpy(culprit, path, strlen(path) + 1);
    if (package_path_check(culprit, from) == 0)
        return 0;
    PyErr_Format(PyExc_ImportError,
                 "refusing to load code from %s: %s may be changed by others than its owner%s", path, culprit,
                 package_path_hint(culprit, hint, sizeof hint));
    return -1;
}

const char *package_parent(void)
{
    char dir[PATH_MAX];
    if (parent_dir[0])
        return parent_dir;
    size_t prefix = package_path_find(dir, sizeof dir);
    if (prefix == 0) {
        PyErr_Format(PyExc_ImportError, "no installed pyrunc package found below '%s'", dir);
        return NULL;
    }
    if (check(dir, prefix) < 0)
        return NULL;
    memcpy(parent_dir, dir, strlen(dir) + 1);
    return parent_dir;
}

/* An object with the two attributes that _imp.create_dynamic asks for. */
static PyObject *make_spec(const char *name, const char *path)
{
    PyObject *origin = PyUnicode_DecodeUTF8(path, (Py_ssize_t)strlen(path), "surrogateescape");
    PyObject *spec = origin ? PyModule_New(name) : NULL;
    if (spec && (PyObject_SetAttrString(spec, "origin", origin) < 0 ||
                 PyModule_AddStringConstant(spec, "name", name) < 0))
        Py_CLEAR(spec);
    Py_XDECREF(origin);
    return spec;
}

static PyObject *load_file(const char *name, const char *path)
{
    PyObject *imp = PyImport_ImportModule("_imp");
    PyObject *spec = imp ? make_spec(name, path) : NULL;
    PyObject *module = spec ? PyObject_CallMethod(imp, "create_dynamic", "O", spec) : NULL;
    /* Multi-phase modules are not put into sys.modules by themselves. */
    if (module && PyDict_SetItemString(PyImport_GetModuleDict(), name, module) < 0)
        Py_CLEAR(module);
    PyObject *done = module ? PyObject_CallMethod(imp, "exec_dynamic", "O", module) : NULL;
    if (!done)
        Py_CLEAR(module);
    Py_XDECREF(done);
    Py_XDECREF(spec);
    Py_XDECREF(imp);
    return module;
}

PyObject *load_extension(const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    int len = snprintf(path, sizeof path, PYTHON_DYNLOAD "/%s" PYTHON_EXT_SUFFIX, name);
    if (len < 0 || (size_t)len >= sizeof path || stat(path, &st) < 0)
        return NULL;
    return load_file(name, path);
}
