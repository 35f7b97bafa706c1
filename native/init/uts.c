/* HOSTNAME, DOMAINNAME, SYSCTL. */
#include "fsapi.h"

#include <string.h>

#include "text.h"

int op_hostname(struct init *in, const struct plan_step *st)
{
    const char *name = step_str(in, st, S_HOSTNAME_name);

    if (sethostname(name, strlen(name)) < 0)
        return fault(in, errno, "sethostname", S_HOSTNAME_name, 0, NULL);
    return 0;
}

int op_domainname(struct init *in, const struct plan_step *st)
{
    const char *name = step_str(in, st, S_DOMAINNAME_name);

    if (setdomainname(name, strlen(name)) < 0)
        return fault(in, errno, "setdomainname", S_DOMAINNAME_name, 0, NULL);
    return 0;
}

/* "net/../kernel/core_pattern" would pass as a key of the network namespace (CVE-2022-0811 was
 * similar).  The validation of the configuration refuses it; this is a second check. */
static int has_dotdot(const char *path)
{
    for (const char *at = path; (at = strstr(at, "..")); at += 2)
        if ((at == path || at[-1] == '/') && (at[2] == '/' || at[2] == 0))
            return 1;
    return 0;
}

/* Use the host's procfs: files below sys/ belong to the namespaces of the process that opens
 * them, not to the mount.  The container's own /proc may be a trap (CVE-2025-52881). */
int op_sysctl(struct init *in, const struct plan_step *st)
{
    char path[PATH_BUF];
    const char *key = step_str(in, st, S_SYSCTL_key), *value = step_str(in, st, S_SYSCTL_value);
    struct text t = text_in(path, sizeof(path));

    text_str(&t, "sys/");
    text_str(&t, key);
    if (strlen(key) + sizeof("sys/") > sizeof(path))
        return fault(in, ENAMETOOLONG, "open", S_SYSCTL_key, 0, NULL);
    if (has_dotdot(key))
        return fault(in, EINVAL, "open", S_SYSCTL_key, 0, "\"..\" in the key");
    int AUTO_CLOSE fd = open_proc(in, path, O_WRONLY);
    if (fd < 0)
        return fault(in, -fd, "open", S_SYSCTL_key, 0, fd == -EXDEV ? "something is mounted over it" : "");
    /* An empty value would be a write of zero bytes, which the kernel ignores.  A newline is an
     * empty value. */
    size_t len = strlen(value);
    ssize_t done = len ? sys_write(fd, value, len) : sys_write(fd, "\n", 1);
    if (done < 0)
        return fault(in, errno, "write", S_SYSCTL_value, 0, NULL);
    if ((size_t)done != (len ? len : 1))
        return fault(in, EINVAL, "write", S_SYSCTL_value, 0, "the kernel accepted only part of the value");
    return 0;
}
