/* Find the blocks of the heap that verbs read and write.
 *
 * A training run has every block in pages of its own.  When the interpreter is as it will be in
 * the snapshot, all blocks become inaccessible, and the handler of SIGSEGV notes the first access
 * and the first write to each.  Allocations happen in the same order in every run, so their
 * numbers identify the blocks in the runs that make the snapshot.
 */
#include "training.h"

#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "heap.h"

enum { PAGE = 4096, PAGES = 1 << 18, BLOCKS = 1 << 22 };

int training;
static unsigned char *space;
static struct {
    uint32_t number, size; /* of the block that starts here */
    uint32_t back;         /* from this page to the start of its block */
    uint32_t readable;     /* the block that starts here */
} * pages;
static unsigned char *level_of_block; /* by number */
static uint32_t *unused;              /* stack of single pages */
static size_t used_pages, unused_count;
static unsigned char watched;

static void *reserve(size_t size)
{
    void *found = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                       0);
    return found == MAP_FAILED ? NULL : found;
}

static int prepare(void)
{
    pages = reserve(PAGES * sizeof *pages);
    unused = reserve(PAGES * sizeof *unused);
    level_of_block = reserve(BLOCKS);
    space = pages && unused && level_of_block ? reserve((size_t)PAGES * PAGE) : NULL;
    if (space)
        memset(level_of_block, HEAP_COLD, BLOCKS);
    return space != NULL;
}

int training_has(const void *block)
{
    return space && (uintptr_t)block - (uintptr_t)space < (uintptr_t)PAGES * PAGE;
}

static size_t page_of(const void *block)
{
    return (size_t)((const unsigned char *)block - space) / PAGE;
}

/* The block that an address is in, by its first page. */
static size_t block_of(const void *address)
{
    size_t page = page_of(address);
    return page - pages[page].back;
}

void *training_take(size_t size, size_t number)
{
    if (number >= BLOCKS || (!space && !prepare()))
        return NULL;
    size_t count = (size + PAGE - 1) / PAGE, first;
    if (count == 1 && unused_count > 0) {
        first = unused[--unused_count];
    } else {
        if (count > PAGES - used_pages)
            return NULL;
        first = used_pages;
        used_pages += count;
    }
    pages[first].number = (uint32_t)number;
    pages[first].size = (uint32_t)size;
    for (size_t i = 0; i < count; i++)
        pages[first + i].back = (uint32_t)i;
    return space + first * PAGE;
}

size_t training_size(const void *block)
{
    return pages[page_of(block)].size;
}

void training_give_back(void *block)
{
    size_t page = page_of(block);
    if (!watched && pages[page].size <= PAGE)
        unused[unused_count++] = (uint32_t)page;
}

static int protect(size_t first, int protection)
{
    return mprotect(space + first * PAGE, pages[first].size, protection);
}

/* The first access makes a block readable, and the next fault is a write. */
static void on_access(int signal, siginfo_t *info, void *context)
{
    (void)context;
    static const struct sigaction standard = {.sa_handler = SIG_DFL};
    int ours = training_has(info->si_addr);
    size_t first = ours ? block_of(info->si_addr) : 0;
    int written = pages[first].readable != 0;
    if (!ours || protect(first, written ? PROT_READ | PROT_WRITE : PROT_READ) < 0) {
        (void)sigaction(signal, &standard, NULL); /* a real fault: it happens again */
        return;
    }
    pages[first].readable = 1;
    level_of_block[pages[first].number] = written ? watched - 1 : HEAP_READ;
}

void training_visit(void (*visit)(const void *block))
{
    for (size_t page = 0; page < used_pages; page++)
        if (pages[page].back == 0)
            visit(space + page * PAGE);
}

void training_keep_readable(const void *address, int readable)
{
    if (training_has(address))
        pages[block_of(address)].readable = readable != 0;
}

void training_is_read(const void *address)
{
    if (!training_has(address))
        return;
    unsigned char *level = &level_of_block[pages[block_of(address)].number];
    if (*level == HEAP_COLD)
        *level = HEAP_READ;
}

int training_is_cold(const void *address)
{
    return !training_has(address) || level_of_block[pages[block_of(address)].number] == HEAP_COLD;
}

int training_watch(unsigned char level)
{
    struct sigaction handler = {.sa_sigaction = on_access, .sa_flags = SA_SIGINFO};
    int first_call = !watched;
    watched = level + 1;
    if (!first_call)
        return 0;
    if (sigaction(SIGSEGV, &handler, NULL) < 0)
        return -1;
    if (mprotect(space, used_pages * PAGE, PROT_NONE) < 0)
        return -1;
    for (size_t page = 0; page < used_pages; page++)
        if (pages[page].readable && protect(page, PROT_READ) < 0)
            return -1;
    return 0;
}

int training_end(void)
{
    return mprotect(space, used_pages * PAGE, PROT_READ | PROT_WRITE);
}

int training_report(int fd, size_t count)
{
    for (size_t done = 0; done < count;) {
        ssize_t n = write(fd, level_of_block + done, count - done);
        if (n < 0)
            return -1;
        done += (size_t)n;
    }
    return 0;
}
