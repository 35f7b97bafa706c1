/* Start-up from a snapshot: the interpreter as it is after its core phase, with pyrunc's hot modules imported, is part of
 * the executable.  docs/adr/0010-start-up-snapshot.md; native/launcher/snapshot/snapshot.py makes it.
 */
#ifndef PYRUNC_SNAPSHOT_H
#define PYRUNC_SNAPSHOT_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>

enum snapshot {
    SNAPSHOT_NONE = 0,  /* as linked: start the interpreter, as if there were no snapshots */
    SNAPSHOT_MAKE = 1,  /* a copy that snapshot.py runs: start it, import, print memory, end */
    SNAPSHOT_READY = 2, /* memory is in the file: relocate it and go on */
};

/* One piece of memory: words, of which some are addresses. */
struct pyrunc_piece {
    uint64_t words;   /* how many */
    uint64_t inside;  /* place of the bitmap of addresses in the executable, 64 words each */
    uint64_t on_heap; /* the same of addresses on the heap */
};

/* Written into the executable by snapshot.py, which finds it by its name.  Places count from the load address. */
struct pyrunc_snapshot {
    uint64_t state;
    uint64_t variables;          /* place of the first variable */
    uint64_t heap;               /* place of what was on the heap */
    struct pyrunc_piece data[2]; /* of the variables and of the heap */
    uint64_t fixups;             /* place of the words that are not aligned, or that ld.so writes, too */
    uint64_t count;              /* how many */
};

struct pyrunc_fixup {
    uint64_t piece; /* 0 variables, 1 heap */
    uint64_t place; /* in bytes from the start of the piece */
    uint64_t base;  /* what is added to the value: 0 the load address, 1 the heap's, 2 nothing */
    uint64_t value;
};

#ifdef HAVE_SNAPSHOT

/* The seed of the hashes of strings, which is random otherwise: docs/adr/0014-json-reader.md. */
#define SNAPSHOT_HASH_SEED 1

extern volatile struct pyrunc_snapshot pyrunc_snapshot;

static inline uint64_t snapshot_state(void)
{
    return pyrunc_snapshot.state;
}

/* While a snapshot is made.  First of all: remember what memory was. */
void snapshot_before(void);
/* Let the interpreter take all its memory from heap.c. */
void snapshot_use_heap(PyPreConfig *config);
/* Import the hot modules and print memory to stdout.  0, or -1 with an exception set. */
int snapshot_print(void);

/* Relocate the memory that is in the file and make its interpreter this process's.  NULL, or what was wrong. */
const char *snapshot_restore(void);

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
static inline const char *snapshot_restore(void)
{
    return NULL;
}

#endif
#endif
