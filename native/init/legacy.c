/* Options that are too long for fsconfig(2): only mount(2) accepts them.
 *
 * mount(2) attaches the mount and takes only a path, so create it where no process sees it, and
 * clone it from there.
 */
#include "fsapi.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

int too_long_for_fsconfig(struct init *in, const struct plan_step *st)
{
    const char *item = step_str(in, st, S_MOUNT_data);

    for (uint32_t i = 0; i < st->n[L_MOUNT_data]; i++, item = list_next(item)) {
        const char *value = strchr(item, '=');
        if (value && strlen(value + 1) > FS_STRING_MAX)
            return 1;
    }
    return strlen(step_str(in, st, S_MOUNT_source)) > FS_STRING_MAX;
}

int join_data(struct init *in, const struct plan_step *st, char data[LEGACY_MAX])
{
    const char *item = step_str(in, st, S_MOUNT_data);
    size_t at = 0;

    for (uint32_t i = 0; i < st->n[L_MOUNT_data]; i++, item = list_next(item)) {
        size_t len = strlen(item);
        if (at + len + 2 > LEGACY_MAX)
            return fault(in, E2BIG, "mount", S_MOUNT_data, i, "more than a page of options");
        if (at)
            data[at++] = ',';
        memcpy(data + at, item, len);
        at += len;
    }
    data[at] = 0;
    return 0;
}

/* Shared with the child, which exits before we continue (CLONE_VFORK).  The fields are volatile
 * because the child never returns, and the compiler would treat its writes as dead. */
struct elsewhere {
    const char *source, *fstype, *data;
    volatile int tree; /* detached, or -errno */
    const char *volatile call;
};

/* Runs in our memory, with our descriptors, in its own mount namespace.  It mounts over "/":
 * nobody can replace that name, and the mount hides nothing that the options name, such as a
 * lowerdir in the root filesystem.  ".." of the root resolves to the mount on top of it. */
static int mount_elsewhere(void *arg)
{
    struct elsewhere *job = arg;

    job->call = "unshare";
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        job->tree = -errno;
        _exit(1);
    }
    job->call = "mount";
    if (mount(job->source, "/", job->fstype, 0, job->data) < 0) {
        job->tree = -errno;
        _exit(1);
    }
    job->call = "open_tree";
    int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int top = open("/..", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int same = root < 0 || top < 0 ? -errno : same_place(root, top);
    /* Never return our own root, wherever "/.." leads. */
    job->tree = same < 0 ? same : same ? -EXDEV : clone_tree(top, 0);
    close(root); /* the descriptor table is shared, and _exit runs no cleanup */
    close(top);
    _exit(0);
}

int legacy_tree(struct init *in, const struct plan_step *st, const char *data)
{
    static unsigned char stack[16384] __attribute__((aligned(16)));
    struct elsewhere job = {.source = step_str(in, st, S_MOUNT_source),
                            .fstype = step_str(in, st, S_MOUNT_fstype),
                            .data = data,
                            .tree = -EIO,
                            .call = "clone"};
    pid_t pid = clone(mount_elsewhere, stack + sizeof(stack), CLONE_VM | CLONE_FILES | CLONE_VFORK | SIGCHLD,
                      &job);

    if (pid < 0)
        return fault(in, errno, "clone", -1, 0, "");
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (job.tree < 0)
        return fault(in, -job.tree, job.call, job.tree == -ENODEV ? S_MOUNT_fstype : -1, 0, "");
    return job.tree;
}
