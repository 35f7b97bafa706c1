/* System calls of init as a test sees them: counted, made to fail, or with something done right before or after one.
 *
 * calls.flags, a response file for the linker, puts the functions of calls.c in the place of libc's.
 */
#ifndef PYRUNC_TEST_CALLS_H
#define PYRUNC_TEST_CALLS_H

#include <stdio.h>

struct calls {
    int armed;       /* 0: calls pass through and are not counted */
    long count;      /* calls since it was armed */
    long fail_at;    /* the call with this number, from 0 on, is not made and fails; -1: none */
    long more;       /* and so do as many calls after it */
    int error;       /* with this errno */
    const char *hit; /* the name of the call that failed; NULL: not reached */
    /* Called around every call while armed; `after` is 0 before it and 1 after it.  Calls made from here pass through. */
    void (*watch)(const char *name, int after);
    /* Where every call is written to while armed, with its flags and modes in hexadecimal; NULL: nowhere. */
    FILE *log;
};

extern struct calls calls;

#endif
