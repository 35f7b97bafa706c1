/* Check the plan from the parent as a whole, before init uses any of it. */
#ifndef PYRUNC_PLAN_LOAD_H
#define PYRUNC_PLAN_LOAD_H

#include <stddef.h>
#include <stdint.h>

#include "plan.h"

/* Check every byte that the handlers rely on.  `buf` must be 8-aligned.  Returns 0, or -EINVAL
 * or -EPROTO (the plan of another build), with *why set to a constant text and *step to the
 * failed step (NO_SLOT: the header).  Makes no system call, no allocation, and no write to
 * `buf`.  The fuzzer calls it. */
int plan_check(const void *buf, size_t len, const char **why, uint32_t *step);

#endif
