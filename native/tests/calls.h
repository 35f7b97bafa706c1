/* Intercept system calls of init in a test: count them, make them fail, or act right before or
 * after one.
 *
 * calls.flags, a response file for the linker, replaces libc's functions by those of calls.c.
 */
#ifndef PYRUNC_TEST_CALLS_H
#define PYRUNC_TEST_CALLS_H

#include <stdio.h>

struct calls {
    int armed;       /* 0: calls pass through and are not counted */
    long count;      /* calls since arming */
    long fail_at;    /* the call with this number, from 0, fails without being made; -1: none */
    long more;       /* so do this many calls after it */
    int error;       /* with this errno */
    const char *hit; /* the name of the failed call; NULL: not reached */
    /* Called around every call while armed, with `after` 0 before the call and 1 after it.
     * Calls from here pass through. */
    void (*watch)(const char *name, int after);
    /* While armed, log every call here, with its flags and modes in hexadecimal; NULL: no log. */
    FILE *log;
};

extern struct calls calls;

#endif
