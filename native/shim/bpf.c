/* bpf(2) for the device programs of cgroup v2: see shim.h.  Four commands do not justify libbpf. */
#include "shim.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD_ATTEMPTS 5

static int bpf(enum bpf_cmd cmd, union bpf_attr *attr)
{
    long result = syscall(SYS_bpf, cmd, attr, sizeof *attr);
    return result < 0 ? -errno : (int)result;
}

static uint64_t address(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

int pr_bpf_prog_load_device(const void *insns, int ninsns, char *log, int loglen)
{
    union bpf_attr attr;
    int fd;
    if (ninsns <= 0)
        return -EINVAL;
    memset(&attr, 0, sizeof attr);
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.insns = address(insns);
    attr.insn_cnt = (uint32_t)ninsns;
    attr.license = address("Apache-2.0"); /* no GPL-only helper is called */
    memcpy(attr.prog_name, "pyrunc_devices", sizeof "pyrunc_devices");
    int tries = LOAD_ATTEMPTS;
    do
        fd = bpf(BPF_PROG_LOAD, &attr); /* EAGAIN: the verifier was interrupted by a signal */
    while (fd == -EAGAIN && --tries > 0);
    if (fd >= 0 || !log || loglen < 128)
        return fd;
    /* Load it again for the verifier's log: logging slows down every load. */
    memset(log, 0, (size_t)loglen);
    attr.log_level = 1;
    attr.log_buf = address(log);
    attr.log_size = (uint32_t)loglen;
    int again = bpf(BPF_PROG_LOAD, &attr);
    return again == -ENOSPC ? fd : again; /* ENOSPC: the log did not fit */
}

int pr_bpf_prog_attach(int cgroup_fd, int prog_fd, unsigned int flags, int replace_fd)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.target_fd = (uint32_t)cgroup_fd;
    attr.attach_bpf_fd = (uint32_t)prog_fd;
    attr.attach_type = BPF_CGROUP_DEVICE;
    attr.attach_flags = flags;
    if (replace_fd >= 0)
        attr.replace_bpf_fd = (uint32_t)replace_fd;
    return bpf(BPF_PROG_ATTACH, &attr);
}

int pr_bpf_prog_detach(int cgroup_fd, int prog_fd)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.target_fd = (uint32_t)cgroup_fd;
    attr.attach_bpf_fd = (uint32_t)prog_fd;
    attr.attach_type = BPF_CGROUP_DEVICE;
    return bpf(BPF_PROG_DETACH, &attr);
}

int pr_bpf_prog_query(int cgroup_fd, uint32_t *ids, int max)
{
    union bpf_attr attr;
    if (max < 0)
        return -EINVAL;
    memset(&attr, 0, sizeof attr);
    attr.query.target_fd = (uint32_t)cgroup_fd;
    attr.query.attach_type = BPF_CGROUP_DEVICE;
    attr.query.prog_ids = address(ids);
    attr.query.prog_cnt = (uint32_t)max;
    int err = bpf(BPF_PROG_QUERY, &attr);
    return err < 0 ? err : (int)attr.query.prog_cnt;
}

int pr_bpf_prog_get_fd_by_id(uint32_t id)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.prog_id = id;
    return bpf(BPF_PROG_GET_FD_BY_ID, &attr);
}

int pr_bpf_prog_name(int prog_fd, char *name, size_t room)
{
    struct bpf_prog_info info;
    union bpf_attr attr;
    memset(&info, 0, sizeof info);
    memset(&attr, 0, sizeof attr);
    attr.info.bpf_fd = (uint32_t)prog_fd;
    attr.info.info = address(&info);
    attr.info.info_len = sizeof info;
    int err = bpf(BPF_OBJ_GET_INFO_BY_FD, &attr);
    if (err < 0)
        return err;
    size_t length = strnlen(info.name, sizeof info.name);
    if (length >= room)
        return -ENOSPC;
    memcpy(name, info.name, length);
    name[length] = '\0';
    return (int)length;
}
