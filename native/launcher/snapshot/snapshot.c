/* Printing and restoring a snapshot: see snapshot.h. */
#define Py_BUILD_CORE 1
#include "../launcher.h"

#include <internal/pycore_ceval.h>
#include <internal/pycore_interp.h>
#include <internal/pycore_pystate.h>
#include <internal/pycore_runtime.h>
#include <marshal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "heap.h"
#include "snapshot.h"
#include "training.h"

volatile struct pyrunc_snapshot pyrunc_snapshot __attribute__((section(".data"))) = {SNAPSHOT_NONE};

/* What snapshot.py sends to stdin. */
static struct {
    uint64_t train;  /* 1: report the levels of blocks instead of memory */
    uint64_t levels; /* number of bytes that follow: see heap_record */
    uint64_t code;   /* number of bytes that follow: training.py, marshalled; 0: none */
} request;
static unsigned char *request_data;

/* ld's symbol for the executable's first variable.  The heap is the last one. */
extern unsigned char __data_start[];

extern char **environ;

/* CPython's thread_pthread.h: with the clock of its timeouts.  No header declares it. */
extern int _PyThread_cond_init(PyCOND_T *cond);

/* snapshot.py puts it in the place of constructors that are not needed. */
void snapshot_nothing(void);
__attribute__((used)) void snapshot_nothing(void)
{
}

static int read_all(void *data, size_t size)
{
    for (unsigned char *next = data; size > 0;) {
        ssize_t done = read(STDIN_FILENO, next, size);
        if (done <= 0)
            return -1;
        next += done;
        size -= (size_t)done;
    }
    return 0;
}

int snapshot_before(void)
{
    static char *nothing[1];
    environ = nothing; /* see renew_environment */
    if (read_all(&request, sizeof request) < 0)
        return -1;
    size_t size = request.levels + request.code;
    request_data = mmap(NULL, size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (request_data == MAP_FAILED || read_all(request_data, size) < 0)
        return -1;
    if (request.train)
        heap_train();
    else
        heap_record(request_data, request.levels);
    return 0;
}

static void *take_arena(void *context, size_t size)
{
    (void)context;
    return calloc(1, size);
}

static void free_arena(void *context, void *arena, size_t size)
{
    (void)context;
    (void)size;
    free(arena);
}

void snapshot_use_heap(PyPreConfig *config)
{
    config->allocator = PYMEM_ALLOCATOR_MALLOC; /* pymalloc finds its arenas by their addresses */
    PyObject_SetArenaAllocator(&(PyObjectArenaAllocator){NULL, take_arena, free_arena});
}

/* What ties an interpreter to a process: the ids of its single thread, the keys of thread
 * variables, libc's objects in the interpreter's lock, from 3.12 on a thread variable of the
 * executable, and in 3.14 the limits of the stack. */
static PyThreadState *single_thread;

#if PY_VERSION_HEX < 0x030C0000
static Py_tss_t *const thread_keys[] = {&_PyRuntime.gilstate.autoTSSkey};
#else
static Py_tss_t *const thread_keys[] = {&_PyRuntime.autoTSSkey, &_PyRuntime.trashTSSkey};
#endif

static void forget_thread(void)
{
    PyThreadState *thread = single_thread = PyThreadState_Get();
    _PyRuntime.main_thread = thread->thread_id = thread->native_thread_id = 0;
    for (size_t i = 0; i < sizeof thread_keys / sizeof *thread_keys; i++)
        PyThread_tss_delete(thread_keys[i]);
    /* Finished calls leave addresses of the C stack. */
    if (thread->datastack_chunk)
        memset(thread->datastack_top, 0,
               (size_t)(thread->datastack_limit - thread->datastack_top) * sizeof(PyObject *));
#if PY_VERSION_HEX >= 0x030E0000
    _PyThreadStateImpl *extended = (_PyThreadStateImpl *)thread;
    extended->c_stack_top = extended->c_stack_soft_limit = extended->c_stack_hard_limit = 0;
    extended->c_stack_init_base = extended->c_stack_init_top = 0;
#endif
}

#if PY_VERSION_HEX >= 0x030E0000
/* Pass CPython the limits of the stack.  CPython itself would call pthread_getattr_np, which parses
 * /proc/self/maps: a tenth of the instructions of a short verb.  The name of the executed file is
 * at the top of the stack, above arguments and environment. */
static int limit_recursion(PyThreadState *thread)
{
    enum { MOST = 8 << 20 }; /* the usual limit, also if there is none */
    uintptr_t top = getauxval(AT_EXECFN);
    struct rlimit limit;
    if (top == 0 || getrlimit(RLIMIT_STACK, &limit) < 0) {
        _Py_InitializeRecursionLimits(thread);
        return 0;
    }
    size_t size = limit.rlim_cur < MOST ? (size_t)limit.rlim_cur : MOST;
    return PyUnstable_ThreadState_SetStackProtection(thread, (void *)(top - size), size);
}
#endif

/* glibc 2.41 changed the layout of pthread_cond_t, and the snapshot may come from a process with an
 * older libc.  With its contents, threads wait for the interpreter's lock forever. */
static int renew_lock(PyThreadState *thread)
{
#if PY_VERSION_HEX < 0x030C0000
    struct _gil_runtime_state *lock = &_PyRuntime.ceval.gil;
    (void)thread;
#else
    struct _gil_runtime_state *lock = thread->interp->ceval.gil;
#endif
    return _PyThread_cond_init(&lock->cond) | _PyThread_cond_init(&lock->switch_cond) |
           pthread_mutex_init(&lock->mutex, NULL) | pthread_mutex_init(&lock->switch_mutex, NULL);
}

static int adopt_thread(void)
{
    PyThreadState *thread = single_thread;
    _PyRuntime.main_thread = thread->thread_id = PyThread_get_thread_ident();
    thread->native_thread_id = PyThread_get_thread_native_id();
#if PY_VERSION_HEX >= 0x030C0000
    _Py_tss_tstate = thread;
#endif
#if PY_VERSION_HEX >= 0x030E0000
    if (limit_recursion(thread) < 0)
        return -1;
#endif
    if (renew_lock(thread) != 0)
        return -1;
    for (size_t i = 0; i < sizeof thread_keys / sizeof *thread_keys; i++)
        if (PyThread_tss_create(thread_keys[i]) != 0)
            return -1;
    return PyThread_tss_set(thread_keys[0], thread) == 0 ? 0 : -1;
}

static int print(const void *data, size_t len)
{
    for (const unsigned char *next = data; len > 0;) {
        ssize_t done = write(STDOUT_FILENO, next, len);
        if (done < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        next += done;
        len -= (size_t)done;
    }
    return 0;
}

/* Call a function of training.py. */
static int call(PyObject *functions, const char *name)
{
    PyObject *function = PyDict_GetItemString(functions, name); /* borrowed */
    PyObject *result = function ? PyObject_CallNoArgs(function) : NULL;
    if (!function)
        PyErr_SetString(PyExc_KeyError, name);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* The functions of training.py; empty if there is none. */
static PyObject *load_training(void)
{
    PyObject *functions = PyDict_New();
    if (!functions || request.code == 0)
        return functions;
    PyObject *code = PyMarshal_ReadObjectFromString((char *)request_data + request.levels,
                                                    (Py_ssize_t)request.code);
    PyObject *result = code && PyDict_SetItemString(functions, "__builtins__", PyEval_GetBuiltins()) == 0
                           ? PyEval_EvalCode(code, functions, functions)
                           : NULL;
    Py_XDECREF(code);
    Py_XDECREF(result);
    if (!result)
        Py_CLEAR(functions);
    return functions;
}

/* posix.environ holds the environment of the process that took the snapshot. */
static int renew_environment(void)
{
    PyObject *posix = PyImport_ImportModule("posix");
    PyObject *dict = posix ? PyObject_GetAttrString(posix, "environ") : NULL;
    if (!dict)
        return -1;
    for (char **entry = environ; entry && *entry; entry++) {
        const char *equals = strchr(*entry, '=');
        if (!equals)
            continue;
        PyObject *name = PyBytes_FromStringAndSize(*entry, equals - *entry);
        PyObject *value = PyBytes_FromString(equals + 1);
        if (!name || !value || !PyDict_SetDefault(dict, name, value))
            return -1;
        Py_DECREF(name);
        Py_DECREF(value);
    }
    Py_DECREF(dict);
    Py_DECREF(posix);
    return 0;
}

/* System calls read the contents of bytes, and fail if these are inaccessible.  Every block is at
 * least as large as a PyObject. */
static void keep_bytes(const void *block)
{
    if (Py_TYPE((PyObject *)(uintptr_t)block) == &PyBytes_Type)
        training_keep_readable(block, 1);
}

static const PyCodeObject *code_in(const void *block)
{
    int found = Py_TYPE((PyObject *)(uintptr_t)block) == &PyCode_Type;
    return found && training_size(block) >= sizeof(PyCodeObject) ? block : NULL;
}

/* Only the interpreter reads these. */
static void watch_bytes_of_code(const void *block)
{
    const PyCodeObject *code = code_in(block);
    if (code) {
        training_keep_readable(code->co_localspluskinds, 0);
        training_keep_readable(code->co_exceptiontable, 0);
        training_keep_readable(code->co_linetable, 0);
    }
}

static void items_are_read(PyObject *tuple)
{
    training_is_read(tuple);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++) {
        PyObject *item = PyTuple_GET_ITEM(tuple, i);
        if (PyTuple_CheckExact(item))
            items_are_read(item);
        else
            training_is_read(item);
    }
}

static void attributes_are_read(PyTypeObject *type)
{
    PyObject *bases = type->tp_mro;
    for (Py_ssize_t i = 0; bases && i < PyTuple_GET_SIZE(bases); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(bases, i);
        training_is_read(base);
        training_is_read(base->tp_dict);
        if (base->tp_dict)
            training_is_read(((PyDictObject *)base->tp_dict)->ma_keys);
    }
    training_is_read(bases);
}

/* A function may do more than in the training run.  Where it looks a name up, the method cache may
 * lack it, because its slots depend on addresses: then the dictionaries of types are searched. */
static void what_is_used_is_read(const void *block)
{
    const PyCodeObject *code = code_in(block);
    PyObject *tracked = (PyObject *)((uintptr_t)block + sizeof(PyGC_Head));
    if (training_is_cold(block))
        return;
    if (code) {
        items_are_read(code->co_names);
        items_are_read(code->co_consts);
        training_is_read(code->co_exceptiontable);
    } else if (training_size(block) > sizeof(PyHeapTypeObject) && Py_TYPE(tracked) == &PyType_Type) {
        attributes_are_read((PyTypeObject *)tracked);
    }
}

static int report_levels(PyObject *functions, size_t count)
{
    if (call(functions, "create") < 0)
        return -1;
    training_visit(keep_bytes);
    training_visit(watch_bytes_of_code);
    if (training_watch(HEAP_SHORT) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    /* What the launcher itself does. */
    if (renew_environment() < 0 || !PyImport_ImportModule("pyrunc.__main__") || call(functions, "short") < 0)
        return -1;
    (void)training_watch(HEAP_LONG);
    if (call(functions, "long") < 0 || call(functions, "other") < 0 || training_end() < 0)
        return -1;
    training_visit(what_is_used_is_read);
    return training_report(STDOUT_FILENO, count);
}

/* PyGC_Collect does nothing while collection is disabled (start_interpreter). */
static void collect(void)
{
    (void)PyGC_Enable();
    (void)PyGC_Collect();
    (void)PyGC_Disable();
}

/* Objects that are taken from a free list leave their addresses behind its end. */
#define CLEAR_UNUSED(items, count) \
    memset((items) + (count), 0, sizeof(items) - (size_t)(count) * sizeof *(items))

/* Clear what ended calls left behind.  It depends on time, so snapshots would differ. */
static void clear_remains(void)
{
    PyThreadState *thread = PyThreadState_Get();
    memset(thread->datastack_top, 0,
           (size_t)((char *)thread->datastack_limit - (char *)thread->datastack_top));
#if PY_VERSION_HEX < 0x030E0000 /* from 3.14 on, free lists are linked lists */
    PyInterpreterState *interpreter = PyThreadState_GetInterpreter(thread);
#if PY_VERSION_HEX < 0x030D0000
    CLEAR_UNUSED(interpreter->list.free_list, interpreter->list.numfree);
    CLEAR_UNUSED(interpreter->dict_state.free_list, interpreter->dict_state.numfree);
    CLEAR_UNUSED(interpreter->dict_state.keys_free_list, interpreter->dict_state.keys_numfree);
#else
    struct _Py_object_freelists *lists = &interpreter->object_state.freelists;
    CLEAR_UNUSED(lists->lists.items, lists->lists.numfree);
    CLEAR_UNUSED(lists->dicts.items, lists->dicts.numfree);
    CLEAR_UNUSED(lists->dictkeys.items, lists->dictkeys.numfree);
#endif
#endif
}

int snapshot_print(void)
{
    for (const char *const *name = pyrunc_preload; *name; name++)
        if (!PyImport_ImportModule(*name))
            return -1;
    PyObject *functions = load_training();
    if (!functions || (request.code && call(functions, "prepare") < 0))
        return -1;
    collect();
    size_t count = heap_imported();
    /* A process that starts from the snapshot has the inline caches of the one that made it. */
    if (request.code && call(functions, "warm") < 0)
        return -1;
    if (request.train)
        return report_levels(functions, count);
    Py_DECREF(functions);
    collect();
    clear_remains();
    forget_thread();
    memset(&request, 0, sizeof request);
    request_data = NULL;
    size_t used = heap_seal();
    /* The last word shows whether addresses are randomized.  Without randomization, libc's
     * addresses would look like numbers. */
    uint64_t head[] = {(uintptr_t)__data_start, (uintptr_t)pyrunc_heap, used,
                       (uintptr_t)__builtin_frame_address(0)};
    if (print(head, sizeof head) < 0)
        return -1;
    return print(__data_start, (size_t)(pyrunc_heap - __data_start) + used);
}

const char *snapshot_restore(int much)
{
    heap_populate(much);
    /* They only fail for lack of memory, or of keys for thread variables. */
    return adopt_thread() < 0 || renew_environment() < 0 ? "out of memory" : NULL;
}
