/* A child for work on data that may be hostile, with code that may be wrong: see
 * docs/adr/0018-profile-compiler.md.
 *
 * It is a copy of this process that never runs Python.  Before it looks at the data it gives up every
 * descriptor but the pipe that it answers through, every capability, and every system call but the few
 * that memory and an answer take.
 */
#ifndef PYRUNC_SANDBOX_H
#define PYRUNC_SANDBOX_H

#include <stddef.h>

#ifndef SANDBOX_CPU_SECONDS
#define SANDBOX_CPU_SECONDS 5 /* SIGXCPU; SIGKILL a second later */
#endif
#define SANDBOX_MEMORY  (256UL << 20) /* bytes beyond what this process has mapped */
#define SANDBOX_WALL_MS 60000         /* for a child that is stopped, or gets no processor */

struct sandbox {
    /* What the child does.  It writes its answer to `out`, and ends when this returns. */
    void (*work)(const void *input, size_t length, int out);
    const void *input;
    size_t length;
    void *answer; /* where the answer goes; it is untrusted */
    size_t room;
    const char *failed; /* out: the call that failed before the work began, or NULL */
    int status;         /* out: the child's wait status */
};

/* Run the work.  Returns the size of the answer once the child has exited or a signal ended it
 * (`status`); or -errno: -E2BIG for an answer of `room` bytes or more, -ETIMEDOUT, -EINTR if a signal
 * that ends us was noted (signals.c), any other for the call named in `failed`.  No child is left. */
int sandbox_run(struct sandbox *c);

#endif
