/* Shared by the children of the shim: they only make system calls and run no Python. */
#ifndef PYRUNC_CHILD_H
#define PYRUNC_CHILD_H

#include <stddef.h>

/* Clear what a child recorded of its frames on `stack`, an array, in ASan's shadow memory: it would
 * outlive our own frame.  For a child that shares our memory and never returns. */
#ifdef __SANITIZE_ADDRESS__
void __asan_unpoison_memory_region(void const volatile *address, size_t size);
#define FORGET_STACK(stack) __asan_unpoison_memory_region(stack, sizeof(stack))
#else
#define FORGET_STACK(stack) ((void)(stack))
#endif

/* Reset every signal and unblock all.  For a child in which all are blocked. */
void reset_signals(void);

#endif
