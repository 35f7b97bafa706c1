/* Which blocks of the heap verbs read and write to: training.c. */
#ifndef PYRUNC_TRAINING_H
#define PYRUNC_TRAINING_H

#include <stddef.h>

/* Whether this process is a training run, in which each block has pages of its own. */
extern int training;

/* A block of exactly this size.  `number` is its place in the order of allocations. */
void *training_take(size_t size, size_t number);
void training_give_back(void *block);
size_t training_size(const void *block);
int training_has(const void *block);

/* Call a function for each block. */
void training_visit(void (*visit)(const void *block));
/* Whether reads of the block at this address are not noticed. */
void training_keep_readable(const void *address, int readable);
/* From now on, blocks that are written to get this level, and others that are read HEAP_READ.
 * Returns 0, or -1 with errno. */
int training_watch(unsigned char level);
/* No access is noticed any more.  Returns 0, or -1 with errno. */
int training_end(void);
/* The block at this address is at least HEAP_READ. */
void training_is_read(const void *address);
int training_is_cold(const void *address);

/* Write one byte for each of the first `count` allocations: its level. */
int training_report(int fd, size_t count);

#endif
