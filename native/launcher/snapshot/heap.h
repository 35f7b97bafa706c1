/* An allocator whose blocks can be part of a snapshot: heap.c. */
#ifndef PYRUNC_HEAP_H
#define PYRUNC_HEAP_H

#include <stddef.h>
#include <stdint.h>

enum {
    HEAP_SIZE = 16 << 20,
    HEAP_SPARE = 256 << 10, /* the part that snapshot.py reserves after the used part */
};

/* The blocks, in a separate section after all other variables. */
extern unsigned char pyrunc_heap[HEAP_SIZE];

/* From now on every block comes from the array, and freed blocks are cleared. */
void heap_record(void);

/* Stop recording: from now on only small blocks come from the array, and only as many as the
 * spare part holds.  Returns the number of bytes in use. */
size_t heap_seal(void);

/* Replace the used part with memory in huge pages, read from the file at this offset.  A failure
 * leaves everything unchanged. */
void heap_copy(int file, uint64_t place);

#endif
