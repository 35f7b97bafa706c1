/* Start-up from a snapshot: the executable contains the interpreter after its core phase, with
 * pyrunc's hot modules imported. native/launcher/snapshot/snapshot.py creates it; see
 * docs/adr/0028-fixed-addresses.md.
 */
#ifndef PYRUNC_SNAPSHOT_H
#define PYRUNC_SNAPSHOT_H

#include <Python.h>
#include <stdint.h>

enum snapshot {
    SNAPSHOT_NONE = 0,  /* as linked: start the interpreter without a snapshot */
    SNAPSHOT_MAKE = 1,  /* a copy that snapshot.py runs: start it, import, print memory, exit */
    SNAPSHOT_READY = 2, /* memory is in the file: continue from it */
};

#ifdef HAVE_SNAPSHOT

/* The seed of string hashes, which is otherwise random: docs/adr/0014-json-reader.md. */
#define SNAPSHOT_HASH_SEED 1

/* Written into the executable by snapshot.py, which finds it by name. */
struct pyrunc_snapshot {
    uint64_t state;
};
extern volatile struct pyrunc_snapshot pyrunc_snapshot;

static inline uint64_t snapshot_state(void)
{
    return pyrunc_snapshot.state;
}

/* Call this first when making a snapshot: heap.c then provides all blocks.  Reads stdin.  Returns
 * 0, or -1. */
int snapshot_before(void);
/* Make the interpreter allocate all its memory from heap.c. */
void snapshot_use_heap(PyPreConfig *config);
/* Import the hot modules, and print memory to stdout, or the levels of blocks. Returns 0, or -1
 * with an exception set. */
int snapshot_print(void);

/* Adopt the interpreter in memory for this process.  `much` is set if the verb starts processes.
 * Returns NULL, or the error. */
const char *snapshot_restore(int much);

#else

#define SNAPSHOT_HASH_SEED 0

static inline uint64_t snapshot_state(void)
{
    return SNAPSHOT_NONE;
}
static inline int snapshot_before(void)
{
    return -1;
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
