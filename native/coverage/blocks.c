/* Record which basic blocks ran, in a file shared by all processes of a program: one byte per code
 * address.
 *
 * Built with gcc -fsanitize-coverage=trace-pc. integration/mutants/ uses it to find the tests that
 * reach a function.  The record survives any end of a process (execve, SIGKILL, an empty root
 * filesystem).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define QUIET __attribute__((no_sanitize_coverage))
#define SIZE  (1u << 20)

extern const char __ehdr_start[] __attribute__((visibility("hidden")));
void __sanitizer_cov_trace_pc(void);

static unsigned char *blocks;

__attribute__((constructor)) QUIET static void share(void)
{
    int fd = open(BLOCKS_FILE, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return;
    void *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        blocks = map;
}

QUIET void __sanitizer_cov_trace_pc(void)
{
    uintptr_t at = (uintptr_t)__builtin_return_address(0) - (uintptr_t)__ehdr_start;

    if (blocks && at < SIZE)
        blocks[at] = 1;
}
