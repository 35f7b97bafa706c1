/* Extension modules in the executable, and the location of the package. */
#include "launcher.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "package_path.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* Linux 6.3 */
#endif

static char parent_dir[PATH_MAX];

static int check(const char *path, size_t from)
{
    char culprit[PATH_MAX], hint[PATH_MAX + 32];
    memcpy(culprit, path, strlen(path) + 1);
    if (package_path_check(culprit, from) == 0)
        return 0;
    PyErr_Format(PyExc_ImportError,
                 "refusing to load code from %s: %s can be changed by users other than its owner%s", path,
                 culprit, package_path_hint(culprit, hint, sizeof hint));
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

const struct pyrunc_library *find_library(const char *name)
{
    for (const struct pyrunc_library *library = pyrunc_libraries; library->name; library++)
        if (strcmp(library->name, name) == 0)
            return library;
    return NULL;
}

/* Create a memfd that the dynamic loader can open.  Returns -1 with an exception set.  The file
 * is mapped, not executed, so the kernel allows it whatever vm.memfd_noexec is. */
static int library_file(const struct pyrunc_library *library)
{
    int fd = memfd_create(library->name, MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
        fd = memfd_create(library->name, MFD_CLOEXEC);
    for (size_t done = 0; fd >= 0 && done < library->size;) {
        ssize_t count = write(fd, library->data + done, library->size - done);
        if (count > 0) {
            done += (size_t)count;
            continue;
        }
        (void)close(fd);
        fd = -1;
    }
    if (fd < 0)
        PyErr_Format(PyExc_ImportError, "%s: a file in memory: %s", library->name, strerror(errno));
    return fd;
}

/* Create an object with the two attributes that _imp.create_dynamic reads. */
static PyObject *make_spec(const char *name, int fd)
{
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    PyObject *spec = PyModule_New(name);
    if (spec && (PyModule_AddStringConstant(spec, "origin", path) < 0 ||
                 PyModule_AddStringConstant(spec, "name", name) < 0))
        Py_CLEAR(spec);
    return spec;
}

PyObject *load_library(const struct pyrunc_library *library)
{
    int fd = library_file(library);
    if (fd < 0)
        return NULL;
    PyObject *imp = PyImport_ImportModule("_imp");
    PyObject *spec = imp ? make_spec(library->name, fd) : NULL;
    PyObject *module = spec ? PyObject_CallMethod(imp, "create_dynamic", "O", spec) : NULL;
    /* Keep the file open: dlopen() would treat a second library with the same path as the first.
     * Multi-phase modules do not add themselves to sys.modules. */
    if (module && PyDict_SetItemString(PyImport_GetModuleDict(), library->name, module) < 0)
        Py_CLEAR(module);
    PyObject *done = module ? PyObject_CallMethod(imp, "exec_dynamic", "O", module) : NULL;
    if (!done)
        Py_CLEAR(module);
    Py_XDECREF(done);
    Py_XDECREF(spec);
    Py_XDECREF(imp);
    return module;
}
