/* The first acts of the process, whatever form the launcher takes. */
#ifndef PYRUNC_GUARD_H
#define PYRUNC_GUARD_H

/* Returns NULL, or why the process must not go on. */
const char *guard_process(void);

#endif
