/* What the children of the shim share: they make system calls only, and run no Python. */
#ifndef PYRUNC_CHILD_H
#define PYRUNC_CHILD_H

#include <stddef.h>

/* What a child noted of its frames on `stack`, an array, in ASan's shadow memory, where it would outlive our own
 * frame.  For a child that shares our memory and never returns. */
#ifdef __SANITIZE_ADDRESS__
void __asan_unpoison_memory_region(void const volatile *address, size_t size);
#define FORGET_STACK(stack) __asan_unpoison_memory_region(stack, sizeof(stack))
#else
#define FORGET_STACK(stack) ((void)(stack))
#endif

/* Every signal to its default, none blocked.  For a child whose mask is still full. */
void reset_signals(void);

#endif
