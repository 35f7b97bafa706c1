/* A child that processes possibly hostile data with possibly defective code: see
 * docs/adr/0018-profile-compiler.md.
 *
 * It is a copy of this process that never runs Python. Before it looks at the data, it gives up
 * every descriptor except the pipe for its answer, every capability, and every system call
 * except the few that allocating memory and answering take.
 */
#ifndef PYRUNC_SANDBOX_H
#define PYRUNC_SANDBOX_H

#include <stddef.h>

#ifndef SANDBOX_CPU_SECONDS
#define SANDBOX_CPU_SECONDS 5 /* SIGXCPU; SIGKILL a second later */
#endif
#define SANDBOX_MEMORY  (256UL << 20) /* bytes beyond what this process has mapped */
#define SANDBOX_WALL_MS 60000         /* for a child that is stopped or not scheduled */

struct sandbox {
    /* The child's work.  It writes its answer to `out`; the child exits when it returns. */
    void (*work)(const void *input, size_t length, int out);
    const void *input;
    size_t length;
    void *answer; /* room for the answer, which is not trusted */
    size_t room;
    const char *failed; /* out: the call that failed before the work started, or NULL */
    int status;         /* out: the child's wait status */
};

/* Run the work. Returns the size of the answer once the child has exited or was killed by a
 * signal (`status`). Otherwise -errno: -E2BIG for an answer of `room` bytes or more, -ETIMEDOUT,
 * -EINTR if a signal was recorded (signals.c), or the error of the call named in `failed`. No
 * child is left. */
int sandbox_run(struct sandbox *c);

#endif
