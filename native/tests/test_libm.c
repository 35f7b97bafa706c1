/* libm.c gives the same results as libm, to the bit. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "libm.h"
#include "tap.h"

static int same(double one, double other)
{
    return memcmp(&one, &other, sizeof one) == 0 || (one != one && other != other);
}

static const double samples[] = {
    0.0,
    -0.0,
    0.5,
    -0.5,
    0.49999999999999994,
    1.0,
    -1.0,
    1.5,
    2.5,
    -2.5,
    0.1,
    1e-320,
    123456789.75,
    0x1p51 + 0.5,
    0x1p52 + 1,
    -0x1p53,
    1e300,
    -1e300,
    0x1.fffffffffffffp1023,
    __builtin_inf(),
    -__builtin_inf(),
    __builtin_nan(""),
};

static double next(void)
{
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    double value;
    if (state >> 63)
        memcpy(&value, &state, sizeof value);
    else
        value = (double)(int64_t)(state << 1) / 0x1p50;
    return value;
}

static void *libm;

static int alike(const char *name, double (*ours)(double), int rounds)
{
    double (*theirs)(double) = (double (*)(double))dlsym(libm, name);
    int count = 0;
    for (size_t i = 0; theirs && i < sizeof samples / sizeof *samples; i++)
        count += !same(ours(samples[i]), theirs(samples[i]));
    for (int i = 0; theirs && i < rounds; i++) {
        double x = next();
        count += !same(ours(x), theirs(x));
    }
    return theirs && count == 0;
}

static int alike_of_two(const char *name, double (*ours)(double, double))
{
    double (*theirs)(double, double) = (double (*)(double, double))dlsym(libm, name);
    int count = 0;
    for (int i = 0; theirs && i < 100; i++) {
        double x = next(), y = next();
        count += !same(ours(x, y), theirs(x, y));
    }
    return theirs && count == 0;
}

int main(void)
{
    libm = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
    OK(libm != NULL, "libm is here");
#define TEST_ONE(name) OK(alike(#name, name, 100), "%s", #name);
#define TEST_TWO(name) OK(alike_of_two(#name, name), "%s", #name);
    LIBM_OF_ONE(TEST_ONE)
    LIBM_OF_TWO(TEST_TWO)
    OK(alike("floor", floor, 100000), "floor");
    OK(alike("ceil", ceil, 100000), "ceil");
    OK(alike("fabs", fabs, 100000), "fabs");
    OK(alike("round", round, 100000), "round");
    OK(alike("sqrt", sqrt, 100000), "sqrt");
    double sine = 0, cosine = 0;
    sincos(1.25, &sine, &cosine);
    OK(same(sine, sin(1.25)) && same(cosine, cos(1.25)), "sincos");
    OK(same(fma(3, 5, 0.5), 15.5), "fma");
    return tap_end();
}
