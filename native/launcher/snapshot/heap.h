/* An allocator whose blocks can be part of a snapshot: heap.c. */
#ifndef PYRUNC_HEAP_H
#define PYRUNC_HEAP_H

#include <stddef.h>
#include <stdint.h>

enum {
    HEAP_SIZE = 16 << 20,
    HEAP_SPARE = 256 << 10, /* what snapshot.py leaves of it behind the used part */
};

/* The blocks, in a section of its own behind all other variables. */
extern unsigned char pyrunc_heap[HEAP_SIZE];

/* From now on every block comes from there, and what is freed is cleared. */
void heap_record(void);

/* The end of it: from now on small blocks alone come from there, and only as many as the spare part
 * holds.  Returns how many bytes are in use. */
size_t heap_seal(void);

/* Replace the used part, which is in the file of this descriptor at this place, by memory in huge
 * pages.  If that fails, nothing has changed. */
void heap_copy(int file, uint64_t place);

#endif
