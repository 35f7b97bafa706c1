/* Marks on the prototypes of the shim's headers. gen_calls.py reads them; the compiler ignores
 * them. */
#ifndef PYRUNC_MARKS_H
#define PYRUNC_MARKS_H

/* The system call that an error of this function is reported as. Without a mark: the function's
 * own name. */
#define PR_CALL(name)
/* A negative result is a value like any other, not -errno. */
#define PR_VALUE

#endif
