/* colliding SECRET SIZE COUNT: names of eight letters that meet in one place of a dict of SIZE
 * slots.
 *
 * SECRET is the key of the interpreter's string hash in hexadecimal (16 bytes): with a constant
 * seed anybody can do this. Once nothing is left of a hash every key walks along one and the
 * same cycle of slots (CPython's Objects/dictobject.c). The dict is filled in the order of that
 * cycle, so that the rest of the names, chosen to meet taken slots as long as anything of their
 * hash is left, walk to the end of what is filled: half of the dict for each.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LETTERS = 8, SHIFT = 5, STEPS = 13 };

static uint64_t key[2];

static uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static void scramble(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

/* SipHash-1-3 of eight bytes, as the interpreter has it. */
static uint64_t hash(const char *text)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u,
                     key[1] ^ 0x7465646279746573u};
    uint64_t word, length = (uint64_t)LETTERS << 56;
    memcpy(&word, text, sizeof word);
    v[3] ^= word;
    scramble(v);
    v[0] ^= word;
    v[3] ^= length;
    scramble(v);
    v[0] ^= length;
    v[2] ^= 0xff;
    scramble(v);
    scramble(v);
    scramble(v);
    uint64_t found = v[0] ^ v[1] ^ v[2] ^ v[3];
    return found == UINT64_MAX ? UINT64_MAX - 1 : found;
}

static void name(uint64_t number, char text[LETTERS + 1])
{
    for (int i = LETTERS - 1; i >= 0; i--, number /= 26)
        text[i] = (char)('a' + number % 26);
    text[LETTERS] = '\0';
}

static void take(uint64_t number, unsigned char *used, size_t slot)
{
    char text[LETTERS + 1];
    name(number, text);
    puts(text);
    used[slot] = 1;
}

int main(int argc, char **argv)
{
    if (argc != 4 || sscanf(argv[1], "%16" SCNx64 "%16" SCNx64, &key[0], &key[1]) != 2)
        return 2;
    key[0] = __builtin_bswap64(key[0]);
    key[1] = __builtin_bswap64(key[1]);
    size_t size = strtoull(argv[2], NULL, 10), count = strtoull(argv[3], NULL, 10), mask = size - 1;
    unsigned char *used = calloc(size, 1);
    uint64_t *first = calloc(size, sizeof *first), number = 1;
    char text[LETTERS + 1];
    if (!used || !first)
        return 1;
    for (size_t left = size; left > 0; number++) { /* a name for each slot of an empty dict */
        name(number, text);
        uint64_t *place = &first[hash(text) & mask];
        left -= *place == 0;
        *place = *place ? *place : number;
    }
    size_t made = 0, slot = 0;
    for (; made < count * 4 / 5; made++, slot = (slot * 5 + 1) & mask)
        take(first[slot], used, slot);
    for (; made < count; number++) {
        name(number, text);
        uint64_t perturb = hash(text);
        size_t at = perturb & mask;
        int steps = 0;
        for (; steps < STEPS && used[at]; steps++) {
            perturb >>= SHIFT;
            at = (at * 5 + perturb + 1) & mask;
        }
        if (steps < STEPS)
            continue;
        while (used[at])
            at = (at * 5 + 1) & mask;
        take(number, used, at);
        made++;
    }
    return 0;
}
