/* libm on demand: one library less to load on every start.
 *
 * CPython's float, time and math modules refer to these functions, and verbs call hardly any of
 * them.  The linker drops libm because of --as-needed, if this file has all that is needed.
 * copysign, frexp, ldexp and modf are in libc.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "libm.h"

#define NO_FRACTION 0x1p52 /* from here on every double is an integer */

/* Not kept: the snapshot must not have an address in a library. */
static void *find(const char *name)
{
    void *libm = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
    void *function = libm ? dlsym(libm, name) : NULL;
    if (!function) {
        static const char text[] = "pyrunc: error: libm.so.6 is missing or incomplete\n";
        (void)!write(STDERR_FILENO, text, sizeof text - 1);
        _exit(1);
    }
    return function;
}

#define OF_ONE(name)                                 \
    double name(double x)                            \
    {                                                \
        return ((double (*)(double))find(#name))(x); \
    }
#define OF_TWO(name)                                            \
    double name(double x, double y)                             \
    {                                                           \
        return ((double (*)(double, double))find(#name))(x, y); \
    }
LIBM_OF_ONE(OF_ONE)
LIBM_OF_TWO(OF_TWO)

double fma(double x, double y, double z)
{
    return ((double (*)(double, double, double))find("fma"))(x, y, z);
}

void sincos(double x, double *sine, double *cosine)
{
    ((void (*)(double, double *, double *))find("sincos"))(x, sine, cosine);
}

/* CPython's time functions call these for every timeout. */

double floor(double x)
{
    if (!(__builtin_fabs(x) < NO_FRACTION))
        return x;
    double whole = (double)(int64_t)x;
    return __builtin_copysign(whole > x ? whole - 1 : whole, x);
}

double ceil(double x)
{
    return -floor(-x);
}

double round(double x)
{
    double size = __builtin_fabs(x), whole = floor(size);
    return __builtin_copysign(size - whole >= 0.5 ? whole + 1 : whole, x);
}

double sqrt(double x)
{
    return __builtin_sqrt(x); /* an instruction, because of -fno-math-errno */
}

double fabs(double x)
{
    return __builtin_fabs(x); /* an instruction */
}
