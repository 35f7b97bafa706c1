/* Test heap.c alone: random calls compared with a model, with and without a second thread.  TAP
 * on stdout. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <stdint.h>

#include "heap.h"

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

int main(void)
{
    ok(churn(ROUNDS / 10) && heap_seal() == 0, "without a snapshot everything is libc's");
    free(NULL);
    void *first = realloc(NULL, 10);
    ok(first != NULL, "realloc of nothing");
    free(first);
    heap_record();
    int kept = churn(ROUNDS / 20);
    size_t used = heap_seal();
    ok(kept && used > 0, "while the snapshot is made");
    int clean = 1;
    for (size_t i = 0; i < used / 8; i++) { /* all is free: zero except for the sorted lists */
        uint64_t word = ((uint64_t *)(void *)pyrunc_heap)[i];
        clean &= word == 0 || (word > (uintptr_t)pyrunc_heap + 8 * i && word < (uintptr_t)pyrunc_heap + used);
    }
    ok(clean, "nothing of what was freed is left");
    ok(churn(ROUNDS), "after it was taken");
    char *kept_block = malloc(100);
    memset(kept_block, 9, 100);
    int file = memfd_create("heap", 0);
    size_t now = heap_seal();
    ok(file >= 0 && pwrite(file, pyrunc_heap, now, 4096) == (ssize_t)now, "the heap is in a file");
    memset(kept_block, 8, 100);
    heap_copy(-1, 4096);
    ok(kept_block[99] == 8, "what cannot be read leaves everything as it was");
    heap_copy(file, 4096);
    ok(kept_block[0] == 9 && kept_block[99] == 9, "the heap is what the file says");
    free(kept_block);
    ok(churn(ROUNDS / 10), "and can be used");
    close(file);
    void *large = malloc(1 << 20);
    ok(large && (size_t)((unsigned char *)large - pyrunc_heap) >= used + HEAP_SPARE,
       "large blocks are libc's");
    free(large);
    void *blocks[20000];
    for (size_t i = 0; i < 20000; i++)
        blocks[i] = memset(malloc(3000), 1, 3000);
    ok(heap_seal() > used, "a full heap goes on with libc's");
    for (size_t i = 0; i < 20000; i++)
        free(blocks[i]);
    volatile size_t much = (size_t)-1 / 2;
    ok(malloc(much) == NULL && calloc(much, 3) == NULL, "too much is refused");
    in_two_threads();
    printf("1..%d\n", tests);
    return failures != 0;
}
