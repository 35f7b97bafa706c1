/* Build a short text in a fixed buffer.  It is always NUL-terminated, and truncated if it does
 * not fit. stdio would be a third of init. */
#ifndef PYRUNC_TEXT_H
#define PYRUNC_TEXT_H

#include <stddef.h>
#include <stdint.h>

struct text {
    char *at;
    char *end; /* the last byte of the buffer, for the NUL */
};

static inline struct text text_in(char *buf, size_t size)
{
    buf[0] = 0;
    return (struct text){buf, buf + size - 1};
}

static inline void text_str(struct text *t, const char *s)
{
    while (*s && t->at < t->end)
        *t->at++ = *s++;
    *t->at = 0;
}

static inline void text_num(struct text *t, uint64_t value)
{
    char digits[24];
    char *p = digits + sizeof(digits) - 1;

    *p = 0;
    do
        *--p = (char)('0' + value % 10);
    while (value /= 10);
    text_str(t, p);
}

#endif
