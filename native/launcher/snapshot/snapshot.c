/* Printing and restoring a snapshot: see snapshot.h. */
#define Py_BUILD_CORE 1
#include "../launcher.h"

#include <internal/pycore_runtime.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "heap.h"
#include "snapshot.h"

volatile struct pyrunc_snapshot pyrunc_snapshot __attribute__((section(".data"))) = {0};

/* The compiler says of its own accord that a section has content: the rest of its line is made a comment. */
#ifdef __aarch64__
#define NO_CONTENT ".pyimage,\"aw\",@nobits//"
#else
#define NO_CONTENT ".pyimage,\"aw\",@nobits#"
#endif

/* Where snapshot.py puts what it has to say; without a snapshot it is not even in the file. */
unsigned char pyrunc_image[8 << 20] __attribute__((aligned(4096), section(NO_CONTENT)));

/* ld's names: where the executable is loaded (its addresses start at 0), and its variables. */
extern const unsigned char __ehdr_start[] __attribute__((visibility("hidden")));
extern unsigned char __data_start[];

extern char **environ;

static unsigned char *before, *heap;

void snapshot_before(void)
{
    static char *nothing[1];
    environ = nothing; /* see renew_environment */
    size_t size = (size_t)(pyrunc_image - __data_start);
    heap = heap_map(0);
    heap_record(heap);
    void *copy = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy != MAP_FAILED)
        before = memcpy(copy, __data_start, size);
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

/* What ties an interpreter to a process is the ids of its thread (there is only one) and the key of a thread variable. */
static void forget_thread(void)
{
    PyThreadState *thread = PyThreadState_Get();
    _PyRuntime.main_thread = thread->thread_id = thread->native_thread_id = 0;
    PyThread_tss_delete(&_PyRuntime.gilstate.autoTSSkey);
}

static int adopt_thread(void)
{
    PyThreadState *thread = PyThreadState_Get();
    Py_tss_t *key = &_PyRuntime.gilstate.autoTSSkey;
    _PyRuntime.main_thread = thread->thread_id = PyThread_get_thread_ident();
    thread->native_thread_id = PyThread_get_thread_native_id();
    return PyThread_tss_create(key) == 0 && PyThread_tss_set(key, thread) == 0 ? 0 : -1;
}

/* A type's dict of subclasses has their addresses as keys, which mean nothing at another load address: numbers that no
 * object can have as its address take their place.  Whoever reads the dict looks at the values. */
static int renumber_subclasses(PyTypeObject *type)
{
    PyObject *old = type->tp_subclasses, *key, *ref;
    Py_ssize_t pos = 0;
    if (!old)
        return 0;
    PyObject *numbered = PyDict_New();
    if (!numbered)
        return -1;
    while (PyDict_Next(old, &pos, &key, &ref)) {
        PyObject *subclass = PyWeakref_GET_OBJECT(ref);
        PyObject *number = PyLong_FromSsize_t(PyDict_GET_SIZE(numbered));
        if (!number || PyDict_SetItem(numbered, number, ref) < 0)
            return -1;
        Py_DECREF(number);
        if (subclass != Py_None && renumber_subclasses((PyTypeObject *)subclass) < 0)
            return -1;
    }
    type->tp_subclasses = numbered;
    Py_DECREF(old);
    return 0;
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

int snapshot_print(void)
{
    for (const char *const *name = pyrunc_preload; *name; name++)
        if (!PyImport_ImportModule(*name))
            return -1;
    (void)PyGC_Collect();
    if (renumber_subclasses(&PyBaseObject_Type) < 0)
        return -1;
    (void)PyType_ClearCache(); /* found by address */
    forget_thread();
    const unsigned char *copy = before, *start = heap;
    before = heap = NULL;
    size_t used = heap_seal();
    uint64_t head[] = {(uintptr_t)__ehdr_start, (uintptr_t)__data_start, (uintptr_t)pyrunc_image,
                       (uintptr_t)start, used};
    size_t size = head[2] - head[1];
    if (!copy || print(head, sizeof head) < 0 || print(copy, size) < 0 || print(__data_start, size) < 0)
        return -1;
    return print(start, used);
}

static void add(uint64_t *word, uint64_t words, uint64_t place, uint64_t base)
{
    const uint64_t *bits = (const uint64_t *)((uintptr_t)__ehdr_start + place);
    for (uint64_t *end = word + words; word < end; word += 64)
        for (uint64_t left = *bits++; left; left &= left - 1)
            word[__builtin_ctzll(left)] += base;
}

static int relocate(void)
{
    struct pyrunc_snapshot s = pyrunc_snapshot;
    uintptr_t base = (uintptr_t)__ehdr_start;
    size_t size = s.data[1].words * 8;
    unsigned char *start = heap_map(size);
    if (!start)
        return -1;
    memcpy(start, (const void *)(base + s.heap), size);
    uint64_t *words[] = {(uint64_t *)(base + s.variables), (uint64_t *)start};
    for (size_t i = 0; i < 2; i++) {
        add(words[i], s.data[i].words, s.data[i].inside, base);
        add(words[i], s.data[i].words, s.data[i].on_heap, (uintptr_t)start);
    }
    const struct pyrunc_fixup *fixup = (const struct pyrunc_fixup *)(base + s.fixups);
    const uint64_t bases[] = {base, (uintptr_t)start, 0};
    for (const struct pyrunc_fixup *end = fixup + s.count; fixup < end; fixup++) {
        uint64_t value = bases[fixup->base] + fixup->value;
        memcpy((unsigned char *)words[fixup->piece] + fixup->place, &value, sizeof value);
    }
    return 0;
}

/* posix.environ was made by another process. */
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

const char *snapshot_restore(void)
{
    /* Each of them fails for nothing but a lack of memory, or of keys for thread variables. */
    return relocate() < 0 || adopt_thread() < 0 || renew_environment() < 0 ? "out of memory" : NULL;
}
