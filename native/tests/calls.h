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
    const long *args; /* of the call, for `watch`; without a libc function the number comes first */
    int halves;       /* pread and pwrite transfer half of what they are asked for */
    /* While armed, log every call here, with its names, and its flags and modes in hexadecimal; with
     * fail_at only those after the failing call.  NULL: no log. */
    FILE *log;
};

extern struct calls calls;

#endif
