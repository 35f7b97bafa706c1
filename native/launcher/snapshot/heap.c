/* An allocator whose blocks can be part of a snapshot: see heap.h.
 *
 * The linker's --wrap redirects every malloc, calloc, realloc and free of code linked into the
 * executable to this file.  Shared libraries keep libc's.  Blocks come from one array, grouped by
 * level and size class, a unit (or four) of one class at a time.  While the snapshot is taken, all
 * blocks come from the array.  A process that started from a snapshot only takes small blocks from
 * it.  Once there is a second thread, all new blocks are libc's, and blocks in the array are never
 * freed.
 */
#include "heap.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/single_threaded.h>

#include "training.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);

enum {
    UNIT = 1024,
    UNITS = HEAP_SIZE / UNIT,
    STEP = 16,   /* classes of small blocks: 16, 32 ... 512 bytes */
    SMALL = 512, /* then 640 ... 1024, 1280 ... 2048, 2560 ... 4096 */
    LARGEST = 4096,
    CLASSES = SMALL / STEP + 12,
    POOL = 16, /* units of each class for the verbs of the training run */
    POOL_OF_TINY = 64,
    TINY = 128, /* most blocks are not larger */
    BEFORE_COLD = HEAP_SHORT_SIZE + HEAP_LONG_SIZE + HEAP_READ_SIZE,
    RUN = 255, /* class of the units of a larger block */
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
unsigned char pyrunc_heap[HEAP_SIZE] __attribute__((aligned(HEAP_PAGE), section(NO_CONTENT)));

static int recording, imported;
static size_t extent; /* in units, while not recording; 0: there is no heap */
static unsigned char unit_class[UNITS];
static unsigned short run_units[UNITS]; /* of the run that starts at this unit */

/* The levels of the first blocks, in the order of their allocation. */
static const unsigned char *levels;
static size_t level_count, taken;

/* Each level has a region of the array.  Blocks that find no place in theirs go to the next. */
static struct {
    size_t next, end; /* in units */
    struct free_block *freed[CLASSES];
    struct {
        unsigned char *next, *end;
    } fresh[CLASSES];
} regions[HEAP_LEVELS] = {
    [HEAP_SHORT] = {.end = HEAP_SHORT_SIZE / UNIT},
    [HEAP_LONG] = {.next = HEAP_SHORT_SIZE / UNIT, .end = (HEAP_SHORT_SIZE + HEAP_LONG_SIZE) / UNIT},
    [HEAP_READ] = {.next = (HEAP_SHORT_SIZE + HEAP_LONG_SIZE) / UNIT, .end = BEFORE_COLD / UNIT},
    [HEAP_COLD] = {.next = BEFORE_COLD / UNIT, .end = UNITS},
};

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

void heap_record(const unsigned char *of_blocks, size_t count)
{
    recording = 1;
    extent = UNITS;
    levels = of_blocks;
    level_count = count;
}

void heap_train(void)
{
    recording = training = 1;
    extent = UNITS;
}

size_t heap_seal(void)
{
    recording = imported = 0;
    if (extent)
        extent = regions[HEAP_COLD].next;
    levels = NULL;
    level_count = taken = 0;
    /* What a process allocates is written to, and must not spread over the cold blocks. */
    for (size_t level = HEAP_SHORT + 1; level < HEAP_LEVELS; level++) {
        for (size_t kind = 0; kind < CLASSES; kind++)
            for (struct free_block *block = regions[level].freed[kind], *next; block; block = next) {
                next = block->next;
                block->next = NULL;
            }
        memset(regions[level].freed, 0, sizeof regions[level].freed);
        memset(regions[level].fresh, 0, sizeof regions[level].fresh);
    }
    return extent * UNIT;
}

void heap_populate(int much)
{
    enum { PAGE = 4096, SPARE = 16 * PAGE };
    size_t used = regions[HEAP_SHORT].next * UNIT + SPARE;
    if (!regions[HEAP_SHORT].next)
        return;
    /* The kernel rounds the end up to a page of its own. */
    (void)madvise(pyrunc_heap, used & ~(size_t)(PAGE - 1), MADV_POPULATE_WRITE);
    if (much)
        (void)madvise(pyrunc_heap + HEAP_SHORT_SIZE, regions[HEAP_LONG].next * UNIT - HEAP_SHORT_SIZE,
                      MADV_POPULATE_WRITE);
}

/* The brk heap may start where the array ends. */
static int is_ours(const void *block)
{
    if (training && training_has(block))
        return 1;
    return (uintptr_t)block - (uintptr_t)pyrunc_heap < (uintptr_t)extent * UNIT;
}

static size_t unit_of(const void *block)
{
    return (size_t)((const unsigned char *)block - pyrunc_heap) / UNIT;
}

static unsigned char *take_units(size_t level, size_t count, unsigned char class)
{
    if (count > regions[level].end - regions[level].next)
        return NULL;
    size_t first = regions[level].next;
    memset(unit_class + first, class, count);
    regions[level].next += count;
    return pyrunc_heap + first * UNIT;
}

/* How much a verb allocates at once depends on time, and must not decide where other blocks are.
 * Therefore each class has its units now, and what does not fit comes from libc. */
size_t heap_imported(void)
{
    imported = 1;
    for (size_t kind = 0; !training && kind < CLASSES; kind++) {
        size_t count = class_size(kind) <= TINY ? POOL_OF_TINY : POOL;
        unsigned char *start = take_units(HEAP_COLD, count, (unsigned char)kind);
        regions[HEAP_COLD].fresh[kind].next = start;
        regions[HEAP_COLD].fresh[kind].end = start ? start + count * UNIT : NULL;
    }
    return taken;
}

/* Take a block of whole units.  Only the process that takes the snapshot does, so they are never
 * reused. */
static void *take_run(size_t level, size_t size)
{
    size_t count = (size + UNIT - 1) / UNIT;
    if (count > 0xFFFF)
        return NULL;
    unsigned char *start = take_units(level, count, RUN);
    if (start)
        run_units[unit_of(start)] = (unsigned short)count;
    return start;
}

static void *take_small(size_t level, size_t class)
{
    struct free_block *block = regions[level].freed[class];
    if (block) {
        regions[level].freed[class] = block->next;
        /* The snapshot must not contain parts of an address in a block that is not fully
         * written. */
        if (recording)
            block->next = NULL;
        return block;
    }
    size_t size = class_size(class);
    unsigned char **next = &regions[level].fresh[class].next, **end = &regions[level].fresh[class].end;
    if ((size_t)(*end - *next) < size) {
        if (imported)
            return NULL;
        size_t count = size > SMALL ? 4 : 1;
        unsigned char *start = take_units(level, count, (unsigned char)class);
        if (!start)
            return NULL;
        *next = start;
        *end = start + count * UNIT;
    }
    void *result = *next;
    *next += size;
    return result;
}

static void *take(size_t size)
{
    if (!recording)
        return size > LARGEST ? NULL : take_small(HEAP_SHORT, class_of(size));
    if (imported && (training || size > LARGEST))
        return NULL;
    size_t number = taken++;
    if (training)
        return training_take(size > LARGEST ? (size + UNIT - 1) / UNIT * UNIT : class_size(class_of(size)),
                             number);
    void *block = NULL;
    for (size_t level = number < level_count ? levels[number] : HEAP_COLD; !block && level < HEAP_LEVELS;
         level++)
        block = size > LARGEST ? take_run(level, size) : take_small(level, class_of(size));
    return block;
}

static size_t block_size(const void *block)
{
    if (training)
        return training_size(block);
    size_t unit = unit_of(block);
    return unit_class[unit] == RUN ? (size_t)run_units[unit] * UNIT : class_size(unit_class[unit]);
}

static size_t level_of(const void *block)
{
    size_t unit = unit_of(block), level = HEAP_SHORT;
    while (unit >= regions[level].end)
        level++;
    return level;
}

static void give_back(void *block)
{
    if (training) {
        training_give_back(block);
        return;
    }
    size_t class = unit_class[unit_of(block)], level = recording ? level_of(block) : HEAP_SHORT;
    struct free_block *freed_block = block, **place = &regions[level].freed[class == RUN ? 0 : class];
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
    return extent && __libc_single_threaded;
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
