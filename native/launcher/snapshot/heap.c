/* An allocator whose blocks can be part of a snapshot: see heap.h.
 *
 * The linker's --wrap redirects every malloc, calloc, realloc and free of code linked into the
 * executable to this file.  Shared libraries keep libc's.  Blocks come from one array, grouped by
 * size class, a page (or four) of one class at a time.  While the snapshot is taken, all blocks
 * come from the array.  A process that started from a snapshot only takes small blocks from it.
 * Once there is a second thread, all new blocks are libc's, and blocks in the array are never
 * freed.
 */
#include "heap.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/single_threaded.h>
#include <unistd.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);

enum {
    PAGE = 4096,
    PAGES = HEAP_SIZE / PAGE,
    STEP = 16,   /* classes of small blocks: 16, 32 ... 512 bytes */
    SMALL = 512, /* then 640 ... 1024, 1280 ... 2048, 2560 ... 4096 */
    LARGEST = 4096,
    CLASSES = SMALL / STEP + 12,
    RUN = 255, /* class of the pages of a multi-page block */
};

struct free_block {
    struct free_block *next;
};

/* The compiler appends flags that mark a section as having content.  A comment sign disables the
 * rest of its line. */
#ifdef __aarch64__
#define NO_CONTENT ".pyheap,\"aw\",@nobits//"
#else
#define NO_CONTENT ".pyheap,\"aw\",@nobits#"
#endif
unsigned char pyrunc_heap[HEAP_SIZE] __attribute__((aligned(4096), section(NO_CONTENT)));

static int recording;
static size_t most_pages; /* 0: there is no heap */
static unsigned char page_class[PAGES];
static unsigned short run_pages[PAGES]; /* of the run that starts at this page */
static size_t used_pages;
static struct free_block *freed[CLASSES];
static struct {
    unsigned char *next, *end;
} fresh[CLASSES];

static size_t class_of(size_t size)
{
    if (size <= SMALL)
        return size ? (size - 1) / STEP : 0;
    size_t group = size > 2048 ? 2 : size > 1024 ? 1 : 0, step = (size_t)128 << group;
    return SMALL / STEP + group * 4 + (size - ((size_t)SMALL << group) - 1) / step;
}

static size_t class_size(size_t class)
{
    if (class < SMALL / STEP)
        return (class + 1) * STEP;
    size_t group = (class - SMALL / STEP) / 4, place = (class - SMALL / STEP) % 4;
    return ((size_t)SMALL << group) + (place + 1) * ((size_t)128 << group);
}

void heap_record(void)
{
    recording = 1;
    most_pages = PAGES;
}

size_t heap_seal(void)
{
    recording = 0;
    if (most_pages)
        most_pages = used_pages + HEAP_SPARE / PAGE;
    return used_pages * PAGE;
}

void heap_copy(int file, uint64_t place)
{
    enum { HUGE = 2 << 20 };
    size_t used = used_pages * PAGE, size = most_pages * PAGE;
    unsigned char *space = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED)
        return;
    size_t skipped = -(uintptr_t)space & (HUGE - 1);
    unsigned char *start = space + skipped;
    /* Round to the nearest whole huge page. */
    (void)madvise(start, (used + HUGE / 2) & ~(size_t)(HUGE - 1), MADV_HUGEPAGE);
    if (pread(file, start, used, (off_t)place) != (ssize_t)used ||
        mremap(start, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, pyrunc_heap) == MAP_FAILED) {
        (void)munmap(space, size + HUGE);
        return;
    }
    (void)munmap(space, skipped);
    (void)munmap(start + size, HUGE - skipped);
}

/* The brk heap may start where the spare part ends. */
static int is_ours(const void *block)
{
    return (uintptr_t)block - (uintptr_t)pyrunc_heap < (uintptr_t)most_pages * PAGE;
}

static size_t page_of(const void *block)
{
    return (size_t)((const unsigned char *)block - pyrunc_heap) / PAGE;
}

static unsigned char *take_pages(size_t count, unsigned char class)
{
    if (count > most_pages - used_pages)
        return NULL;
    unsigned char *start = pyrunc_heap + used_pages * PAGE;
    memset(page_class + used_pages, class, count);
    used_pages += count;
    return start;
}

/* Take a block of whole pages.  Only the process that takes the snapshot does, so they are never
 * reused. */
static void *take_run(size_t size)
{
    size_t count = (size + PAGE - 1) / PAGE;
    if (count > 0xFFFF)
        return NULL;
    unsigned char *start = take_pages(count, RUN);
    if (start)
        run_pages[page_of(start)] = (unsigned short)count;
    return start;
}

static void *take(size_t size)
{
    if (size > LARGEST)
        return recording ? take_run(size) : NULL;
    size_t class = class_of(size);
    struct free_block *block = freed[class];
    if (block) {
        freed[class] = block->next;
        /* The snapshot must not contain parts of an address in a block that is not fully
         * written. */
        if (recording)
            block->next = NULL;
        return block;
    }
    size = class_size(class);
    if ((size_t)(fresh[class].end - fresh[class].next) < size) {
        size_t pages = size > SMALL ? 4 : 1;
        unsigned char *start = take_pages(pages, (unsigned char)class);
        if (!start)
            return NULL;
        fresh[class].next = start;
        fresh[class].end = start + pages * PAGE;
    }
    void *result = fresh[class].next;
    fresh[class].next += size;
    return result;
}

static size_t block_size(const void *block)
{
    size_t page = page_of(block);
    return page_class[page] == RUN ? (size_t)run_pages[page] * PAGE : class_size(page_class[page]);
}

static void give_back(void *block)
{
    size_t class = page_class[page_of(block)];
    struct free_block *freed_block = block, **place = &freed[class == RUN ? 0 : class];
    if (recording) {
        /* Two runs must produce the same snapshot.  The order in which blocks are freed
         * sometimes depends on addresses (a discarded set of types), so the lists are sorted. */
        memset(block, 0, block_size(block));
        while (class != RUN && *place && *place < freed_block)
            place = &(*place)->next;
    }
    if (class == RUN)
        return;
    freed_block->next = *place;
    *place = freed_block;
}

static int usable(void)
{
    return most_pages && __libc_single_threaded;
}

void *__wrap_malloc(size_t size)
{
    void *block = usable() ? take(size) : NULL;
    return block ? block : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    size_t bytes;
    void *block = usable() && !__builtin_mul_overflow(count, size, &bytes) ? take(bytes) : NULL;
    return block ? memset(block, 0, bytes) : __real_calloc(count, size);
}

void *__wrap_realloc(void *block, size_t size)
{
    if (!is_ours(block))
        return block ? __real_realloc(block, size) : __wrap_malloc(size);
    size_t old = block_size(block);
    if (size <= old && size > old / 2)
        return block;
    void *moved = __wrap_malloc(size);
    if (!moved)
        return NULL;
    memcpy(moved, block, size < old ? size : old);
    __wrap_free(block);
    return moved;
}

void __wrap_free(void *block)
{
    if (!is_ours(block))
        __real_free(block);
    else if (__libc_single_threaded)
        give_back(block);
}
