/* Make memory allocations of the runtime's own process fail: a library for LD_PRELOAD.
 *
 *     NOMEM="OUT FIRST COUNT"    allocations FIRST ... FIRST+COUNT-1 of this process fail; COUNT 0: all from FIRST on
 *
 * Each call of the C library's malloc, calloc, realloc and mmap is one allocation, counted from 1
 * at the start of the process. pyrunc allocates small blocks from its own heap
 * (native/launcher/snapshot/heap.c), but only while the process has one thread. A fake second
 * thread sends all allocations through this library. It is set up after the snapshot is restored,
 * because the restore overwrites it; the last step of the restore takes over the thread. At exit,
 * OUT gets two numbers: the allocations, and how many of them failed. Programs that the process
 * executes do not inherit this library.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);

static char out[4096];
static long first, limit, seen, failed;
static pid_t process;
static int (*set_specific)(pthread_key_t key, const void *value);

static int fails(void)
{
    if (!process || getpid() != process) /* a child that was forked, such as the profile compiler */
        return 0;
    seen++;
    if (seen < first || (limit && seen >= first + limit))
        return 0;
    failed++;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size)
{
    return fails() ? NULL : __libc_realloc(block, size);
}

void *mmap(void *place, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (fails())
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, place, size, protection, flags, fd, offset);
}

int pthread_setspecific(pthread_key_t key, const void *value)
{
    if (process)
        __libc_single_threaded = 0;
    return set_specific(key, value);
}

__attribute__((constructor)) static void begin(void)
{
    void *found = dlsym(RTLD_NEXT, "pthread_setspecific");
    memcpy(&set_specific, &found, sizeof found);
    const char *text = getenv("NOMEM");
    if (!text || sscanf(text, "%4095s %ld %ld", out, &first, &limit) != 3)
        return;
    unsetenv("NOMEM");
    unsetenv("LD_PRELOAD");
    process = getpid();
}

/* The runtime ends with _exit(2). A child that shares its memory (vfork) is not the runtime. */
__attribute__((noreturn)) void _exit(int status)
{
    char line[64];
    if (process && getpid() == process) {
        process = 0;
        int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        int length = snprintf(line, sizeof line, "%ld %ld\n", seen, failed);
        if (fd >= 0)
            (void)!write(fd, line, (size_t)length);
    }
    for (;;)
        syscall(SYS_exit_group, status);
}
