/* An allocator whose blocks can be part of a snapshot: heap.c. */
#ifndef PYRUNC_HEAP_H
#define PYRUNC_HEAP_H

#include <stddef.h>

/* Map the heap, of which `used` bytes are written at once; NULL if there is no memory. */
unsigned char *heap_map(size_t used);

/* From now on every block comes from `start`, and what is freed is cleared. */
void heap_record(unsigned char *start);

/* The end of it: from now on small blocks alone come from there.  Returns how many bytes are in use. */
size_t heap_seal(void);

#endif
