/* The wait for `start`, with as little memory as possible.
 *
 * Many containers may wait, some of them forever.  Code and constants can be read again from the
 * memfd, and the stack below the caller's frame is not in use.
 */
#include "sys.h"

#include <elf.h>
#include <sys/mman.h>

#include "init.h"

#define PAGE      4096u /* where pages are larger, madvise(2) fails, and nothing is released */
#define MAX_SPANS 8
#define STACK     (128u << 10) /* what execve(2) maps */

extern const char __ehdr_start[] __attribute__((visibility("hidden")));

struct span {
    uintptr_t start, end;
};

struct waiting {
    struct span spans[MAX_SPANS];
    int count;
    int sock, start;
    struct msg created;
    char byte;
};

static void add_span(struct waiting *w, uintptr_t start, uintptr_t end)
{
    if (start < end && w->count < MAX_SPANS)
        w->spans[w->count++] = (struct span){start, end};
}

/* libc's functions are in other pages. */
static inline long raw_call(long number, long a, long b, long c)
{
#if defined(__x86_64__)
    long result;

    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;

    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
#endif
}

/* The alignment keeps it within one page.  Returns the result of the read, or -EPIPE without a
 * parent. */
__attribute__((noinline, aligned(1024))) static long wait_in_one_page(struct waiting *w)
{
    long n;

    for (int i = 0; i < w->count; i++)
        raw_call(SYS_madvise, (long)w->spans[i].start, (long)(w->spans[i].end - w->spans[i].start),
                 MADV_DONTNEED);
    do
        n = raw_call(SYS_write, w->sock, (long)&w->created, sizeof(w->created));
    while (n == -EINTR);
    if (n != sizeof(w->created))
        return -EPIPE;
    raw_call(SYS_close, w->sock, 0, 0);
    do
        n = raw_call(SYS_read, w->start, (long)&w->byte, 1);
    while (n == -EINTR);
    return n;
}

void trim_memory(struct init *in)
{
    /* It can be read again from the plan's memfd. madvise(2) may fail without harm. */
    (void)madvise((void *)(uintptr_t)in->plan, in->plan->size, MADV_DONTNEED);
}

/* All that is not writable, except the page of the function that waits. */
static void add_program(struct waiting *w)
{
    const Elf64_Ehdr *header = (const void *)__ehdr_start;
    const Elf64_Phdr *part = (const void *)(__ehdr_start + header->e_phoff);
    uintptr_t keep = (uintptr_t)wait_in_one_page & ~(uintptr_t)(PAGE - 1);

    for (int i = 0; i < header->e_phnum; i++) {
        if (part[i].p_type != PT_LOAD || (part[i].p_flags & PF_W))
            continue;
        uintptr_t start = ((uintptr_t)__ehdr_start + part[i].p_vaddr) & ~(uintptr_t)(PAGE - 1);
        uintptr_t end = ((uintptr_t)__ehdr_start + part[i].p_vaddr + part[i].p_memsz + PAGE - 1) &
                        ~(uintptr_t)(PAGE - 1);
        if (keep < start || keep >= end) {
            add_span(w, start, end);
        } else {
            add_span(w, start, keep);
            add_span(w, keep + PAGE, end);
        }
    }
}

int wait_for_start(struct init *in, int start)
{
    struct waiting w = {.sock = in->sock, .start = start, .created = make_record(in, MSG_CREATED, 0)};

    if (filter_allows(in, SYS_madvise, 0, 0)) {
        /* one page for the frame of the function that waits */
        uintptr_t frame = ((uintptr_t)&w & ~(uintptr_t)(PAGE - 1)) - PAGE;

        trim_memory(in);
        add_span(&w, frame - STACK, frame);
        add_program(&w);
    }
    long n = wait_in_one_page(&w);
    if (n == -EPIPE)
        leave(1);
    in->sock = -1;
    in->released = w.byte;
    return n < 0 ? (int)n : n == 1 ? 0 : -EPROTO;
}
