/* Records that init sends to its parent. */
#include "sys.h"

#include <string.h>

#include "init.h"
#include "text.h"

static void copy_text(char *to, size_t size, const char *from)
{
    struct text t = text_in(to, size);

    text_str(&t, from);
}

int fault(struct init *in, int err, const char *call, int arg, uint32_t item, const char *detail)
{
    struct fault *f = &in->fault;

    f->call = call;
    f->arg = arg;
    f->item = item;
    if (!detail)
        f->detail[0] = 0;
    else if (detail != f->detail) /* a handler may have written its text there itself */
        copy_text(f->detail, sizeof(f->detail), detail);
    return -err;
}

struct msg make_record(const struct init *in, uint32_t type, int ret)
{
    struct msg m;

    memset(&m, 0, sizeof(m));
    m.type = type;
    m.step = in->step;
    m.err = -ret;
    return m;
}

static void add_fault(struct init *in, struct msg *m)
{
    const struct fault *f = &in->fault;

    if (f->call)
        copy_text(m->call, sizeof(m->call), f->call);
    else if (in->steps && in->step < in->plan->nsteps)
        copy_text(m->call, sizeof(m->call), plan_ops[in->steps[in->step].op].name);
    if (f->arg >= 0)
        m->arg = (uint16_t)(f->arg + 1);
    m->item = f->item > UINT16_MAX ? UINT16_MAX : (uint16_t)f->item;
    copy_text(m->detail, sizeof(m->detail), f->detail);
}

/* One record is one write(2): atomic on a SOCK_SEQPACKET socket, and on a fifo because it is
 * smaller than PIPE_BUF. write and not send, because every usable filter allows it after
 * SECCOMP.  SIGPIPE has its default action, so without a parent we die here (pid 1 of a
 * namespace gets EPIPE instead). */
static int put(int fd, const struct msg *m)
{
    return sys_write(fd, m, sizeof(*m)) == (ssize_t)sizeof(*m) ? 0 : -1;
}

void send_msg(struct init *in, uint32_t type, uint32_t value)
{
    struct msg m = make_record(in, type, 0);

    m.value = value;
    if (put(in->sock, &m) < 0)
        leave(1);
}

void send_tree(struct init *in, uint32_t value, const char *text)
{
    struct msg m = make_record(in, MSG_TREE, 0);

    m.value = value;
    copy_text(m.call, sizeof(m.call), text);
    if (put(in->sock, &m) < 0)
        leave(1);
}

void warn_fault(struct init *in, int ret)
{
    struct msg m = make_record(in, MSG_WARN, ret);

    add_fault(in, &m);
    /* After CREATED no process reads warnings, and a record in the error fifo would make `start`
     * fail. */
    if (in->sock >= 0 && put(in->sock, &m) < 0)
        leave(1);
}

_Noreturn void die(struct init *in, int ret)
{
    struct msg m = make_record(in, MSG_FAIL, ret);
    int fd = in->error_fd >= 0 ? in->error_fd : in->sock;

    add_fault(in, &m);
    if (in->undo)
        in->undo(in);
    trace_failed(in);
    if (fd >= 0)
        put(fd, &m); /* nothing left to do if this fails */
    leave(1);
}

void wait_go(struct init *in)
{
    struct msg m;
    ssize_t n = sys_read(in->sock, &m, sizeof(m));

    if (n < 0)
        die(in, fault(in, errno, "read", -1, 0, "the parent's answer"));
    if (n == 0)
        leave(1);
    if (n != (ssize_t)sizeof(m) || m.type != MSG_GO)
        die(in, fault(in, EPROTO, "read", -1, 0, "the parent sent a message other than GO"));
}
