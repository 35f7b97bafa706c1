/* Test heap.c alone: random calls compared with a model, with and without a second thread.  TAP
 * on stdout. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "heap.h"
#include "training.h"

enum { SLOTS = 2000, ROUNDS = 200000 };

static struct {
    unsigned char *block;
    size_t size;
    unsigned char fill;
} slots[SLOTS];
static int tests, failures;
static unsigned int seed = 12345;

static void ok(int good, const char *what)
{
    printf("%sok %d - %s\n", good ? "" : "not ", ++tests, what);
    failures += !good;
}

static unsigned int number(unsigned int below)
{
    seed = seed * 1103515245u + 12345u;
    return (seed >> 8) % below;
}

static size_t any_size(void)
{
    static const unsigned int limits[] = {64, 600, 5000, 40000};
    return number(limits[number(8) < 5 ? 0 : number(4)]);
}

static int intact(size_t slot)
{
    for (size_t i = 0; i < slots[slot].size; i++)
        if (slots[slot].block[i] != slots[slot].fill)
            return 0;
    return 1;
}

static void fill(size_t slot, size_t size)
{
    slots[slot].size = size;
    slots[slot].fill = (unsigned char)number(256);
    memset(slots[slot].block, slots[slot].fill, size);
}

/* Each block must keep its content until it is freed. */
static int churn(unsigned int rounds)
{
    int good = 1;
    for (unsigned int round = 0; round < rounds && good; round++) {
        size_t slot = number(SLOTS), size = any_size();
        if (!slots[slot].block) {
            int zero = number(2) == 0;
            slots[slot].block = zero ? calloc(1, size) : malloc(size);
            good = slots[slot].block != NULL && ((uintptr_t)slots[slot].block & 15) == 0;
            for (size_t i = 0; zero && i < size; i++)
                good &= slots[slot].block[i] == 0;
            fill(slot, size);
        } else if (number(3) == 0) {
            size_t kept = size < slots[slot].size ? size : slots[slot].size;
            slots[slot].block = realloc(slots[slot].block, size ? size : 1);
            slots[slot].size = kept;
            good = intact(slot);
            fill(slot, size);
        } else {
            good = intact(slot);
            free(slots[slot].block);
            slots[slot].block = NULL;
        }
    }
    for (size_t slot = 0; slot < SLOTS; slot++) {
        good &= !slots[slot].block || intact(slot);
        free(slots[slot].block);
        slots[slot].block = NULL;
    }
    return good;
}

static void *in_thread(void *result)
{
    *(int *)result = churn(ROUNDS / 10);
    return NULL;
}

static void in_two_threads(void)
{
    pthread_t thread;
    int good = 0;
    char *ours = malloc(100);
    memset(ours, 7, 100);
    if (pthread_create(&thread, NULL, in_thread, &good) == 0)
        pthread_join(thread, NULL);
    ok(good, "a second thread");
    ours = realloc(ours, 5000);
    ok(ours && ours[99] == 7, "a block from before grows");
    free(ours);
}

static size_t place(const void *block)
{
    return (size_t)((const unsigned char *)block - pyrunc_heap);
}

/* While blocks are recorded: the first ones have these levels. */
static void in_levels(void)
{
    static const unsigned char levels[] = {HEAP_READ, HEAP_SHORT, HEAP_LONG, HEAP_SHORT};
    size_t cold = HEAP_SHORT_SIZE + HEAP_LONG_SIZE + HEAP_READ_SIZE;
    void *blocks[6], *large;
    heap_record(levels, sizeof levels);
    for (size_t i = 0; i < 3; i++)
        blocks[i] = malloc(100);
    large = malloc(10000);
    for (size_t i = 3; i < 6; i++)
        blocks[i] = malloc(100);
    ok(place(blocks[1]) < HEAP_SHORT_SIZE && place(large) < HEAP_SHORT_SIZE &&
           place(blocks[2]) - HEAP_SHORT_SIZE < HEAP_LONG_SIZE &&
           place(blocks[0]) >= HEAP_SHORT_SIZE + HEAP_LONG_SIZE && place(blocks[0]) < cold &&
           place(blocks[3]) >= cold && place(blocks[3]) < HEAP_SIZE,
       "blocks are in the regions of their levels");
    for (size_t i = 0; i < 6; i++)
        free(blocks[i]);
    free(large);
}

/* Some blocks of `train`. */
static void keep_readable(const void *block)
{
    if (*(const char *)block == 'R')
        training_keep_readable(block, 1);
}

/* In a process of its own: find the blocks that are read and written to. */
static int train(void)
{
    enum { BLOCKS = 10 };
    heap_train();
    char *blocks[BLOCKS];
    for (size_t i = 0; i < BLOCKS; i++)
        blocks[i] = memset(malloc(i == 3 ? 20000 : 20), i < 6 ? 1 : 'R', 20);
    free(blocks[4]);
    size_t count = heap_imported();
    training_visit(keep_readable);
    training_keep_readable(blocks[8], 0);
    training_keep_readable(&count, 1); /* not a block: ignored */
    if (training_watch(HEAP_SHORT) < 0)
        return 1;
    blocks[1][5] = 2;
    volatile char *read_only = blocks[5], *taken_back = blocks[8], *late = blocks[0];
    int fds[2];
    if (read_only[3] != 1 || taken_back[3] != 'R' || pipe(fds) < 0 || write(fds[1], blocks[6], 20) != 20 ||
        read(fds[0], blocks[7], 20) >= 0)
        return 1; /* a system call may read a block that stays readable, but not write to it */
    if (training_watch(HEAP_LONG) < 0)
        return 1;
    blocks[1][6] = 2;
    blocks[3][15000] = 2; /* not on its first page */
    blocks[7][0] = 2;
    if (read_only[3] != 1)
        return 1;
    free(blocks[2]);
    if (training_end() < 0 || late[3] != 1 || !training_is_cold(blocks[0]) || training_is_cold(blocks[8]) ||
        !training_is_cold(&count))
        return 1;
    training_is_read(blocks[1]);
    training_is_read(blocks[9] + 10);
    training_is_read(&count);
    unsigned char levels[BLOCKS + 20] = {0};
    if (count != BLOCKS || read(fds[0], levels, 20) != 20 || training_report(fds[1], count) < 0 ||
        read(fds[0], levels, BLOCKS) != BLOCKS)
        return 1;
    static const unsigned char expected[BLOCKS] = {HEAP_COLD, HEAP_SHORT, HEAP_COLD, HEAP_LONG, HEAP_COLD,
                                                   HEAP_READ, HEAP_COLD,  HEAP_LONG, HEAP_READ, HEAP_READ};
    return memcmp(levels, expected, BLOCKS) != 0;
}

static int in_child(int (*function)(void))
{
    int status = 1;
    pid_t pid = fork();
    if (pid == 0)
        _exit(function());
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

int main(void)
{
    ok(churn(ROUNDS / 10) && heap_seal() == 0, "without a snapshot everything is libc's");
    free(NULL);
    void *first = realloc(NULL, 10);
    ok(first != NULL, "realloc of nothing");
    free(first);
    ok(in_child(train), "a training run finds what is read and written to");
    in_levels();
    int kept = churn(ROUNDS / 20);
    (void)heap_imported();
    void *late = malloc(100000);
    ok(place(late) >= HEAP_SIZE, "large blocks are libc's after the imports");
    free(late);
    static void *many[3000];
    char *low = malloc(4000);
    for (size_t i = 0; i < 3000; i++)
        many[i] = malloc(4000);
    char *other = malloc(3000);
    ok(place(low) < HEAP_SIZE && place(many[2999]) >= HEAP_SIZE && place(other) < HEAP_SIZE,
       "each size has its place, and what does not fit is libc's");
    for (size_t i = 0; i < 3000; i++)
        free(many[i]);
    free(other);
    free(low);
    size_t used = heap_seal();
    ok(kept && used > HEAP_SHORT_SIZE + HEAP_LONG_SIZE, "while the snapshot is made");
    int clean = 1;
    for (size_t i = 0; i < used / 8; i++) { /* all is free: zero except for the sorted lists of one region */
        uint64_t word = ((uint64_t *)(void *)pyrunc_heap)[i];
        clean &= word == 0 || (word > (uintptr_t)pyrunc_heap + 8 * i && i < HEAP_SHORT_SIZE / 8 &&
                               word < (uintptr_t)pyrunc_heap + HEAP_SHORT_SIZE);
    }
    ok(clean, "nothing of what was freed is left");
    heap_populate(1);
    ok(churn(ROUNDS), "after it was taken");
    char *small = malloc(100);
    ok(place(small) < HEAP_SHORT_SIZE, "new blocks are in the first region");
    free(small);
    void *large = malloc(1 << 20);
    ok(place(large) >= HEAP_SIZE, "large blocks are libc's");
    free(large);
    static void *blocks[20000];
    for (size_t i = 0; i < 20000; i++)
        blocks[i] = memset(malloc(3000), 1, 3000);
    ok(place(blocks[19999]) >= HEAP_SIZE, "a full heap goes on with libc's");
    for (size_t i = 0; i < 20000; i++)
        free(blocks[i]);
    volatile size_t much = (size_t)-1 / 2;
    ok(malloc(much) == NULL && calloc(much, 3) == NULL, "too much is refused");
    in_two_threads();
    printf("1..%d\n", tests);
    return failures != 0;
}
