/* Times at which steps start, sent to a parent that requested them (docs/adr/0025-trace.md).
 *
 * One record collects them.  It is sent when it is full, and before a step after which this process
 * could not send it.
 */
#include "sys.h"

#include <string.h>
#include <time.h>

#include "init.h"

/* Static storage: an init without tracing never allocates this page. */
static struct {
    struct msg record;
    int stopped;
    int asked; /* the filter was checked */
} trace;

_Static_assert(offsetof(struct msg, detail) % 8 == 0, "times in a record");

/* CLOCK_REALTIME is the same in every time namespace, so the parent's times and ours are
 * comparable. */
static void add_time(void)
{
    struct msg *m = &trace.record;
    struct timespec ts;
    uint64_t now;

    clock_gettime(CLOCK_REALTIME, &ts);
    now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
    memcpy(m->detail + m->value * sizeof(now), &now, sizeof(now));
    m->value++;
}

static int channel(const struct init *in)
{
    return in->error_fd >= 0 ? in->error_fd : in->sock;
}

/* Ignore errors: the next message to the parent detects that it is gone. */
static void send_times(const struct init *in)
{
    if (trace.record.value)
        (void)sys_write(channel(in), &trace.record, sizeof(trace.record));
    memset(&trace.record, 0, sizeof(trace.record));
    trace.record.type = MSG_STAMPS;
    trace.record.step = in->step;
}

/* Returns 1 if no more times may be sent.  A filter may kill for the write, and for the clock,
 * which is a system call where the vDSO cannot read it.  A `start` that did not request times
 * would treat a record as the failure of a step. */
static int stopped(const struct init *in)
{
    if (in->filtered && !trace.asked) {
        trace.asked = 1;
        trace.stopped |= !filter_allows(in, SYS_clock_gettime, CLOCK_REALTIME, 0) ||
                         !filter_allows(in, SYS_write, (uint64_t)channel(in), 0);
    }
    trace.stopped |= in->error_fd >= 0 && in->released != START_TRACED;
    return trace.stopped;
}

/* After these steps another process continues, the socket is closed, or the parent is working. */
static int leaves(uint16_t op)
{
    switch (op) {
    case OP_PLACE:
    case OP_UNSHARE_USER:
    case OP_CLONE_INIT:
    case OP_SYNC_MOUNTED:
    case OP_SYNC_READY:
    case OP_SECCOMP:
    case OP_WAIT_START:
    case OP_EXECVE:
        return 1;
    default:
        return 0;
    }
}

void trace_step(struct init *in)
{
    if (stopped(in))
        return;
    if (trace.record.type == 0)
        send_times(in);
    add_time();
    if (trace.record.value < MSG_TIMES && !leaves(in->steps[in->step].op))
        return;
    send_times(in);
    add_time(); /* again: the write is not part of the step */
}

void trace_failed(struct init *in)
{
    if (trace.record.type == 0 || stopped(in))
        return;
    add_time();
    send_times(in);
}
