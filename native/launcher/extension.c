/* Extension modules without importlib's path finder: the standard library's _json, and cffi's backend for the shim. */
#include "launcher.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char parent_dir[PATH_MAX];

/* Where an installation keeps the package, seen from the directory above bin/. */
static const char *const layouts[] = {
    "lib/pyrunc",                               /* make install */
    "lib/python" PYTHON_VERSION "/site-packages", /* a virtual environment, pip --user */
    "lib/python" PYTHON_VERSION "/dist-packages", /* Debian's pip outside one */
    "lib/python3/dist-packages",                /* a Debian package */
    "lib64/python" PYTHON_VERSION "/site-packages",
};

static int safe_owner(const struct stat *st, uid_t owner)
{
    if (st->st_uid != 0 && st->st_uid != owner)
        return 0;
    return (st->st_mode & (S_IWGRP | S_IWOTH)) == 0 || (st->st_mode & S_ISVTX);
}

/* What root executes must not be writable by others.  Checked from `path + from` on: the components before are the
 * executable's own directories, and who can change those can change the executable.  Returns 0, or -1 with ImportError. */
static int check_path(const char *path, size_t from)
{
    char part[PATH_MAX];
    struct stat st, self;
    if (geteuid() != 0)
        return 0;
    uid_t owner = stat("/proc/self/exe", &self) == 0 ? self.st_uid : 0;
    size_t len = strlen(path);
    memcpy(part, path, len + 1);
    for (size_t end = from + 1; end <= len; end++) {
        if (path[end] != '/' && path[end] != '\0')
            continue;
        part[end] = '\0';
        if (stat(part, &st) < 0 || !safe_owner(&st, owner)) {
            PyErr_Format(PyExc_ImportError, "refusing to load code from %s: %s may be changed by others than its owner",
                         path, part);
            return -1;
        }
        part[end] = path[end];
    }
    return 0;
}

/* The directory above the executable's, with its slash; 0, or the length. */
static size_t prefix_of_self(char *buf, size_t size)
{
    ssize_t len = readlink("/proc/self/exe", buf, size - 1);
    if (len <= 0)
        return 0;
    buf[len] = '\0';
    for (int level = 0; level < 2; level++) {
        char *slash = strrchr(buf, '/');
        if (!slash)
            return 0;
        *slash = '\0';
    }
    size_t end = strlen(buf);
    buf[end] = '/';
    buf[end + 1] = '\0';
    return end + 1;
}

const char *package_parent(void)
{
    char path[PATH_MAX];
    struct stat st;
    if (parent_dir[0])
        return parent_dir;
    size_t prefix = prefix_of_self(path, sizeof path - 128);
    if (prefix == 0) {
        PyErr_SetString(PyExc_ImportError, "cannot read /proc/self/exe");
        return NULL;
    }
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        (void)snprintf(path + prefix, sizeof path - prefix, "%s/pyrunc/_init", layouts[i]);
        if (stat(path, &st) < 0)
            continue;
        path[strlen(path) - strlen("/pyrunc/_init")] = '\0';
        if (check_path(path, prefix) < 0)
            return NULL;
        memcpy(parent_dir, path, strlen(path) + 1);
        return parent_dir;
    }
    path[prefix] = '\0';
    PyErr_Format(PyExc_ImportError, "no installed pyrunc package found below %slib", path);
    return NULL;
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

PyObject *load_extension(const char *name, const char *dir)
{
    char path[PATH_MAX + 64];
    struct stat st;
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *module = PyDict_GetItemString(modules, name);
    if (module)
        return Py_NewRef(module);
    (void)snprintf(path, sizeof path, "%s/%s" PYTHON_EXT_SUFFIX, dir, name);
    if (stat(path, &st) < 0) /* linked in, or missing: then the ordinary import says so */
        return PyImport_ImportModule(name);
    return load_file(name, path);
}

/* cffi is beside our package (a virtual environment, make install), or Debian's package. */
static PyObject *load_backend(void)
{
    static const char *const file = "_cffi_backend" PYTHON_EXT_SUFFIX;
    char path[PATH_MAX + 64];
    struct stat st;
    PyObject *loaded = PyDict_GetItemString(PyImport_GetModuleDict(), "_cffi_backend");
    if (loaded)
        return Py_NewRef(loaded);
    const char *dir = package_parent();
    if (!dir)
        return NULL;
    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    if (stat(path, &st) == 0)
        return check_path(path, strlen(dir)) < 0 ? NULL : load_file("_cffi_backend", path);
    (void)snprintf(path, sizeof path, "%s/%s", PYTHON_SITE, file);
    if (stat(path, &st) == 0)
        return check_path(path, 0) < 0 ? NULL : load_file("_cffi_backend", path);
    PyErr_Format(PyExc_ImportError, "cffi's backend (%s) is neither in %s nor in " PYTHON_SITE, file, dir);
    return NULL;
}

PyObject *load_shim(void)
{
    PyObject *backend = load_backend();
    if (!backend)
        return NULL;
    Py_DECREF(backend);
    PyObject *module = PyInit__shim();
    if (module && PyDict_SetItemString(PyImport_GetModuleDict(), "pyrunc._shim", module) < 0)
        Py_CLEAR(module);
    return module;
}
