/* Start-up from a snapshot: the interpreter after its core phase, with pyrunc's hot modules imported,
 * is part of the executable.  docs/adr/0028-fixed-addresses.md; made by native/launcher/snapshot/snapshot.py.
 */
#ifndef PYRUNC_SNAPSHOT_H
#define PYRUNC_SNAPSHOT_H

#include <Python.h>
#include <stdint.h>

enum snapshot {
    SNAPSHOT_NONE = 0,  /* as linked: start the interpreter, as if there were no snapshots */
    SNAPSHOT_MAKE = 1,  /* a copy that snapshot.py runs: start it, import, print memory, end */
    SNAPSHOT_READY = 2, /* memory is in the file: go on with it */
};

#ifdef HAVE_SNAPSHOT

/* The seed of the hashes of strings, which is random otherwise: docs/adr/0014-json-reader.md. */
#define SNAPSHOT_HASH_SEED 1

/* Written into the executable by snapshot.py, which finds it by its name. */
struct pyrunc_snapshot {
    uint64_t state;
    uint64_t heap; /* its place in the file */
};
extern volatile struct pyrunc_snapshot pyrunc_snapshot;

static inline uint64_t snapshot_state(void)
{
    return pyrunc_snapshot.state;
}

/* Called before a snapshot, first of all: lets blocks come from heap.c. */
void snapshot_before(void);
/* Let the interpreter take all its memory from there. */
void snapshot_use_heap(PyPreConfig *config);
/* Import the hot modules and print memory to stdout.  0, or -1 with an exception set. */
int snapshot_print(void);

/* Make the interpreter that is in memory this process's; `much` if most of its heap will be used.
 * NULL, or what was wrong. */
const char *snapshot_restore(int much);

#else

#define SNAPSHOT_HASH_SEED 0

static inline uint64_t snapshot_state(void)
{
    return SNAPSHOT_NONE;
}
static inline void snapshot_before(void)
{
}
static inline void snapshot_use_heap(PyPreConfig *config)
{
    (void)config;
}
static inline int snapshot_print(void)
{
    return -1;
}
static inline const char *snapshot_restore(int much)
{
    (void)much;
    return NULL;
}

#endif
#endif
