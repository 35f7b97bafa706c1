/* The plan as it comes from the parent: checked once, as a whole, before any of it is used. */
#ifndef PYRUNC_PLAN_LOAD_H
#define PYRUNC_PLAN_LOAD_H

#include <stddef.h>
#include <stdint.h>

#include "plan.h"

/* Check every byte that the handlers rely on.  `buf` must be 8-aligned.  Returns 0, or -EINVAL / -EPROTO
 * (another build's plan) with *why set to a constant text and *step to the step at fault (NO_SLOT: the
 * header).  Pure: no system call, no allocation, no write below `buf`; what a fuzzer calls. */
int plan_check(const void *buf, size_t len, const char **why, uint32_t *step);

#endif
