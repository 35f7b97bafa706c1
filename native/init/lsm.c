/* The label for the next execve.
 *
 * It is written through the private procfs descriptor: the container's /proc may be a fake that
 * swallows the write, and the container would run unconfined (CVE-2019-16884, CVE-2015-1334,
 * CVE-2025-52881).
 */
#include "sys.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "init.h"
#include "text.h"

/* podman searches for `/proc/.../attr/...` in backticks (docs/callers.md). */
static int write_label(struct init *in, const char *file, const char *text, size_t len)
{
    struct text t = text_in(in->fault.detail, sizeof(in->fault.detail));
    int AUTO_CLOSE fd = open_proc(in, file, O_WRONLY);

    if (fd < 0)
        return fault(in, -fd, "openat2", 0, 0, "");
    ssize_t n = sys_write(fd, text, len);
    if (n == (ssize_t)len)
        return 0;
    int err = n < 0 ? errno : EIO;
    text_str(&t, "`/proc/");
    text_str(&t, file);
    text_str(&t, "`");
    if (err == ENOENT)
        text_str(&t, ": the profile is not loaded");
    else if (err == EINVAL)
        text_str(&t, ": the security module refuses this label");
    else if (err == EACCES || err == EPERM)
        text_str(&t, ": permission denied");
    return fault(in, err, "write", 0, 0, in->fault.detail);
}

int op_apparmor(struct init *in, const struct plan_step *st)
{
    char text[PATH_BUF];
    struct text t = text_in(text, sizeof(text));

    text_str(&t, "exec ");
    text_str(&t, step_str(in, st, S_APPARMOR_profile));
    if (t.at == t.end)
        return fault(in, ENAMETOOLONG, "write", S_APPARMOR_profile, 0, "");
    size_t len = (size_t)(t.at - text);
    /* attr/exec belongs to the first of several stacked security modules.  AppArmor has
     * attr/apparmor/ since Linux 5.1. */
    int ret = write_label(in, "thread-self/attr/apparmor/exec", text, len);
    if (ret == -ENOENT && strcmp(in->fault.call, "openat2") == 0)
        ret = write_label(in, "thread-self/attr/exec", text, len);
    if (ret == -ENOENT && strcmp(in->fault.call, "openat2") == 0)
        return fault(in, ENOENT, "openat2", S_APPARMOR_profile, 0, "AppArmor is not enabled");
    return ret;
}

int op_selinux(struct init *in, const struct plan_step *st)
{
    const char *label = step_str(in, st, S_SELINUX_label);
    int ret = write_label(in, "thread-self/attr/exec", label, strlen(label));

    if (ret == -ENOENT && strcmp(in->fault.call, "openat2") == 0)
        return fault(in, ENOENT, "openat2", S_SELINUX_label, 0, "SELinux is not enabled");
    return ret;
}

/* Runs before and after KEYRING: only the session keyring gets the program's label.  A lone
 * newline resets an attr file. */
int op_key_label(struct init *in, const struct plan_step *st)
{
    const char *label = step_str(in, st, S_KEY_LABEL_label);

    return *label ? write_label(in, "thread-self/attr/keycreate", label, strlen(label))
                  : write_label(in, "thread-self/attr/keycreate", "\n", 1);
}

/* Use a descriptor of the directory itself: the destination is a path in the image. */
int op_mount_label(struct init *in, const struct plan_step *st)
{
    const char *label = step_str(in, st, S_MOUNT_LABEL_label);
    int AUTO_CLOSE fd = open_in_root(in->rootfd, step_str(in, st, S_MOUNT_LABEL_dest),
                                     O_RDONLY | O_DIRECTORY);

    if (fd < 0)
        return fault(in, -fd, "openat2", S_MOUNT_LABEL_dest, 0, NULL);
    if (fsetxattr(fd, "security.selinux", label, strlen(label) + 1, 0) < 0)
        return fault(in, errno, "fsetxattr", S_MOUNT_LABEL_label, 0, "security.selinux");
    return 0;
}
