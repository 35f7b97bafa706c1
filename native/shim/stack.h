/* The stack of a child that shares our memory and never returns. */
#ifndef PYRUNC_STACK_H
#define PYRUNC_STACK_H

#include <stddef.h>

/* What the child noted of its frames on `stack`, an array, in ASan's shadow memory: it would outlive our own frame. */
#ifdef __SANITIZE_ADDRESS__
void __asan_unpoison_memory_region(void const volatile *address, size_t size);
#define FORGET_STACK(stack) __asan_unpoison_memory_region(stack, sizeof(stack))
#else
#define FORGET_STACK(stack) ((void)(stack))
#endif

#endif
