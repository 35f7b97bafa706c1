/* pyrunc: the installed executable.
 *
 * It embeds the interpreter it was built with, isolated: it reads nothing from the environment,
 * runs no site module, and has an empty search path.  Every module that a verb imports is frozen
 * into it.  If CPython supports it, start-up ends after the core phase
 * (docs/adr/0006-core-phase.md), at half the cost.
 */
#include "launcher.h"

#include <string.h>
#include <unistd.h>

#include "guard.h"
#include "package_path.h"
#include "snapshot/snapshot.h"

/* Modules that the interpreter lacks as builtin ones (meson.build). */
#ifndef OWN_MODULES
#define OWN_MODULES
#endif
#define OWN(NAME)                                \
    {                                            \
        .name = #NAME, .initfunc = PyInit_##NAME \
    }
static struct _inittab own_modules[] = {OWN(_pyrunc_launcher), OWN_MODULES{.name = NULL}};

static int failure = 1; /* the exit status */

/* Report without Python, which may be unavailable or out of memory. */
static void fail(const char *text)
{
    static const char who[] = "pyrunc: error: ";
    ssize_t head = sizeof who - 1;
    size_t len = strlen(text);
    if (write(STDERR_FILENO, who, (size_t)head) == head && write(STDERR_FILENO, text, len) == (ssize_t)len)
        (void)!write(STDERR_FILENO, "\n", 1);
    _exit(failure);
}

static void report_exception(void)
{
    PyObject *type, *value, *traceback;
    if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_MemoryError))
        fail("out of memory");
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *text = value ? PyObject_Str(value) : NULL;
    const char *words = text ? PyUnicode_AsUTF8(text) : NULL;
    char line[512];
    PyOS_snprintf(line, sizeof line, "internal error: %s: %s",
                  type && PyType_Check(type) ? ((PyTypeObject *)type)->tp_name : "?", words ? words : "");
    fail(line);
}

static void start_interpreter(void)
{
    PyPreConfig pre;
    PyPreConfig_InitIsolatedConfig(&pre);
    pre.utf8_mode = 1; /* paths are bytes to the kernel; surrogateescape round-trips them in every locale */
    if (snapshot_state() == SNAPSHOT_MAKE)
        snapshot_use_heap(&pre);
    PyStatus status = Py_PreInitialize(&pre);
    if (PyStatus_Exception(status))
        fail(status.err_msg ? status.err_msg : "cannot start the interpreter");

    PyImport_FrozenModules = pyrunc_frozen;
    if (PyImport_ExtendInittab(own_modules) < 0)
        fail("out of memory");

#ifdef HAVE_CORE_PHASE
    in_core_phase = 1;
#endif
    status = initialize_interpreter(!in_core_phase);
    if (PyStatus_Exception(status))
        fail(status.err_msg ? status.err_msg : "cannot start the interpreter");
    /* A verb runs for milliseconds; complete_interpreter() enables it again. */
    (void)PyGC_Disable();
    if (install_loader() < 0)
        report_exception();
}

static PyObject *argument_list(int argc, char **argv)
{
    PyObject *list = PyList_New(argc - 1);
    for (int i = 1; list && i < argc; i++) {
        PyObject *text = PyUnicode_DecodeUTF8(argv[i], (Py_ssize_t)strlen(argv[i]), "surrogateescape");
        if (!text) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, i - 1, text);
    }
    return list;
}

/* pyrunc.__main__.run(argv) handles every exception itself; -1 means that even this failed. */
static int run(int argc, char **argv)
{
    PyObject *main_module = PyImport_ImportModule("pyrunc.__main__");
    PyObject *args = main_module ? argument_list(argc, argv) : NULL;
    PyObject *result = args ? PyObject_CallMethod(main_module, "run", "O", args) : NULL;
    long status = result ? PyLong_AsLong(result) : -1;
    return status < 0 || status > 255 ? -1 : (int)status;
}

static int has(int argc, char **argv, const char *word)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], word) == 0)
            return 1;
    return 0;
}

/* Verbs that start processes execute most of pyrunc.  A wrong guess only costs time. */
static int does_much(int argc, char **argv)
{
    return has(argc, argv, "run") || has(argc, argv, "create") || has(argc, argv, "exec");
}

int main(int argc, char **argv)
{
    if (has(argc, argv, "exec")) /* its callers treat 1 as the program's own status (pyrunc/verbs/exec.py) */
        failure = 255;
    if (snapshot_state() == SNAPSHOT_MAKE && snapshot_before() < 0)
        fail("stdin has no request for a snapshot");
    const char *refusal = guard_process();
    if (!refusal && snapshot_state() != SNAPSHOT_MAKE) /* the build runs it, in its own directory */
        refusal = package_path_refusal();
    if (refusal)
        fail(refusal);
    if (snapshot_state() != SNAPSHOT_READY)
        start_interpreter();
    else if ((refusal = snapshot_restore(does_much(argc, argv))))
        fail(refusal);
    int status = snapshot_state() == SNAPSHOT_MAKE ? snapshot_print() : run(argc < 1 ? 1 : argc, argv);
    if (status < 0)
        report_exception();
    /* No finalization: all output is written, and the kernel frees the rest faster. */
    _exit(status);
}
