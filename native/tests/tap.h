/* Output in the Test Anything Protocol, with a matching exit status. */
#ifndef PYRUNC_TAP_H
#define PYRUNC_TAP_H

#include <stdio.h>

static int tap_count, tap_failed;

#define OK(condition, ...)                                           \
    do {                                                             \
        int tap_good = (condition) ? 1 : 0;                          \
        tap_failed += !tap_good;                                     \
        printf("%sok %d - ", tap_good ? "" : "not ", ++tap_count);   \
        printf(__VA_ARGS__);                                         \
        printf("\n");                                                \
        if (!tap_good)                                               \
            printf("# %s:%d: %s\n", __FILE__, __LINE__, #condition); \
    } while (0)

static inline int tap_end(void)
{
    printf("1..%d\n", tap_count);
    return tap_failed ? 1 : 0;
}

#endif
