/* A fast path for `import pyrunc.x`.
 *
 * importlib takes 40 us for a frozen module (two finders, a spec, a module lock, a namespace
 * object), and a hot verb imports twenty modules.  `import` calls importlib's `_find_and_load` for
 * a module that is not in sys.modules.  Ours handles pyrunc's modules and passes the others on.  In
 * an interpreter that does not call it, importlib finds the same table through
 * PyImport_FrozenModules, which is slower.
 */
#include "launcher.h"

#include <marshal.h>
#include <string.h>

static PyObject *importlib_find_and_load;

static PyObject *load_named(PyObject *name);

static const struct _frozen *find(const char *name)
{
    for (const struct _frozen *f = pyrunc_frozen; f->name; f++)
        if (strcmp(f->name, name) == 0)
            return f;
    return NULL;
}

/* `import a.b` binds b in a. */
static int bind_in_parent(PyObject *parent, const char *name, PyObject *module)
{
    return parent ? PyObject_SetAttrString(parent, strrchr(name, '.') + 1, module) : 0;
}

static PyObject *execute(const struct _frozen *f, PyObject *name)
{
    PyObject *code = PyMarshal_ReadObjectFromString((const char *)f->code, f->size);
    PyObject *module = code ? PyImport_AddModuleObject(name) : NULL; /* borrowed */
    if (!module) {
        Py_XDECREF(code);
        return NULL;
    }
    Py_INCREF(module);
    PyObject *dict = PyModule_GetDict(module), *package, *path = NULL, *result = NULL;
    const char *dot = strrchr(f->name, '.');
    if (f->is_package) {
        package = Py_NewRef(name);
        path = PyList_New(0);
    } else {
        package = PyUnicode_FromStringAndSize(f->name, dot ? dot - f->name : 0);
    }
    if (package && PyDict_SetItemString(dict, "__package__", package) == 0 &&
        PyDict_SetItemString(dict, "__builtins__", PyEval_GetBuiltins()) == 0 &&
        (!f->is_package || (path && PyDict_SetItemString(dict, "__path__", path) == 0)))
        result = PyEval_EvalCode(code, dict, dict);
    Py_XDECREF(package);
    Py_XDECREF(path);
    Py_DECREF(code);
    if (!result) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        if (PyDict_DelItem(PyImport_GetModuleDict(), name) < 0)
            PyErr_Clear();
        PyErr_Restore(type, value, traceback);
        Py_CLEAR(module);
    }
    Py_XDECREF(result);
    return module;
}

/* Import the parent package.  Sets *found to 0 if there is none. */
static PyObject *import_parent(const char *name, int *found)
{
    const char *dot = strrchr(name, '.');
    *found = dot != NULL;
    if (!dot)
        return NULL;
    PyObject *parent_name = PyUnicode_FromStringAndSize(name, dot - name);
    if (!parent_name)
        return NULL;
    PyObject *parent = PyImport_GetModule(parent_name);
    if (!parent && !PyErr_Occurred())
        parent = load_named(parent_name);
    Py_DECREF(parent_name);
    return parent;
}

static PyObject *load_named(PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);
    if (!text)
        return NULL;
    const struct _frozen *f = find(text);
    if (!f) {
        PyErr_Format(PyExc_ModuleNotFoundError, "No module named '%s'", text);
        return NULL;
    }
    int has_parent;
    PyObject *parent = import_parent(text, &has_parent);
    if (has_parent && !parent)
        return NULL;
    /* Importing the parent may have imported this module as well. */
    PyObject *module = PyImport_GetModule(name);
    if (!module && !PyErr_Occurred()) {
        module = execute(f, name);
        if (module && bind_in_parent(parent, text, module) < 0)
            Py_CLEAR(module);
    }
    Py_XDECREF(parent);
    return module;
}

/* Load a module that is a shared library in the executable. */
static PyObject *load_extension(const struct pyrunc_library *library)
{
    const char *dot = strrchr(library->name, '.');
    PyObject *parent = NULL;
    if (dot) {
        PyObject *parent_name = PyUnicode_FromStringAndSize(library->name, dot - library->name);
        parent = parent_name ? PyImport_Import(parent_name) : NULL;
        Py_XDECREF(parent_name);
        /* PyImport_Import returns the module itself, not the package above it. */
        if (!parent)
            return NULL;
    }
    PyObject *module = load_library(library);
    if (module && bind_in_parent(parent, library->name, module) < 0)
        Py_CLEAR(module);
    Py_XDECREF(parent);
    return module;
}

static PyObject *find_and_load(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)self;
    if (nargs == 2 && PyUnicode_Check(args[0])) {
        const char *name = PyUnicode_AsUTF8(args[0]);
        if (!name)
            return NULL;
        if (strncmp(name, "pyrunc", 6) == 0 && (name[6] == '.' || name[6] == '\0'))
            return load_named(args[0]);
        /* A codec's error handler imports the package `encodings`, which importlib cannot find
         * yet. */
        if (in_core_phase && find(name))
            return load_named(args[0]);
        const struct pyrunc_library *library = find_library(name);
        if (library)
            return load_extension(library);
    }
    return PyObject_Vectorcall(importlib_find_and_load, args, (size_t)nargs, NULL);
}

static PyMethodDef find_and_load_def = {"_find_and_load", (PyCFunction)(void (*)(void))find_and_load,
                                        METH_FASTCALL,
                                        "importlib's, with a short way for pyrunc's frozen modules."};

int install_loader(void)
{
    PyObject *importlib = PyImport_ImportModule("_frozen_importlib");
    if (!importlib)
        return -1;
    importlib_find_and_load = PyObject_GetAttrString(importlib, "_find_and_load");
    PyObject *ours = importlib_find_and_load ? PyCFunction_New(&find_and_load_def, NULL) : NULL;
    int result = ours ? PyObject_SetAttrString(importlib, "_find_and_load", ours) : -1;
    Py_XDECREF(ours);
    Py_DECREF(importlib);
    return result;
}
