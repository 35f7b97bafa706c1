/* The first steps of the process, in both forms of the launcher. */
#ifndef PYRUNC_GUARD_H
#define PYRUNC_GUARD_H

/* Returns NULL, or the reason why the process must not continue. */
const char *guard_process(void);

#endif
