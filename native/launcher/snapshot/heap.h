/* An allocator whose blocks can be part of a snapshot: heap.c. */
#ifndef PYRUNC_HEAP_H
#define PYRUNC_HEAP_H

#include <stddef.h>
#include <stdint.h>

/* The kernel's largest page.  arm64 has pages of 4, 16 and 64 KiB. */
#ifdef __aarch64__
#define HEAP_PAGE 65536
#else
#define HEAP_PAGE 4096
#endif

enum {
    HEAP_SIZE = 16 << 20,
    HEAP_SHORT_SIZE = 512 << 10, /* also what a process can allocate */
    HEAP_LONG_SIZE = 640 << 10,
    HEAP_READ_SIZE = 2 << 20,
};

/* How a block is used.  Blocks of one level are together, so that few pages are mapped and
 * written. */
enum heap_level {
    HEAP_SHORT, /* written by state, start, kill or delete */
    HEAP_LONG,  /* written by create, run or exec */
    HEAP_READ,  /* only read by them */
    HEAP_COLD,
    HEAP_LEVELS,
};

/* The blocks, in a separate section after all other variables. */
extern unsigned char pyrunc_heap[HEAP_SIZE];

/* From now on every block comes from the array, and freed blocks are cleared.  The first blocks
 * have these levels, the others are cold. */
void heap_record(const unsigned char *of_blocks, size_t count);

/* From now on every block is in pages of its own (training.h), for a run that takes no snapshot. */
void heap_train(void);

/* Call this when everything is imported: no large block that is allocated from now on stays.
 * Returns the number of blocks allocated so far. */
size_t heap_imported(void);

/* Stop recording: from now on only small blocks come from the array, and only as many as its first
 * region holds.  Returns the number of bytes in use. */
size_t heap_seal(void);

/* Copy the pages that will be written to now, with fewer page faults.  `much`: also those of
 * HEAP_LONG. */
void heap_populate(int much);

#endif
