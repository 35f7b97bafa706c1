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

/* From now on, blocks that are written to get this level, and others that are read HEAP_READ. The
 * first call asks for each block whether it stays readable: then its reads are not noticed.
 * Returns 0, or -1 with errno. */
int training_watch(unsigned char level, int (*stays_readable)(const void *block));

/* Write one byte for each of the first `count` allocations: its level. */
int training_report(int fd, size_t count);

#endif
