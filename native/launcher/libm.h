/* The functions of libm that the interpreter refers to: libm.c. */
#ifndef PYRUNC_LIBM_H
#define PYRUNC_LIBM_H

/* clang-format does not agree with itself about this list. */
/* clang-format off */
#define LIBM_OF_ONE(X) \
    X(acos) X(acosh) X(asin) X(asinh) X(atan) X(atanh) X(cbrt) X(cos) X(cosh) X(erf) X(erfc) X(exp) \
    X(exp2) X(expm1) X(log) X(log10) X(log1p) X(log2) X(sin) X(sinh) X(tan) X(tanh)
#define LIBM_OF_TWO(X) X(atan2) X(fmod) X(hypot) X(nextafter) X(pow)
/* clang-format on */

#define LIBM_DECLARE_ONE(name) double name(double x);
#define LIBM_DECLARE_TWO(name) double name(double x, double y);
LIBM_OF_ONE(LIBM_DECLARE_ONE)
LIBM_OF_TWO(LIBM_DECLARE_TWO)
LIBM_DECLARE_ONE(ceil)
LIBM_DECLARE_ONE(fabs)
LIBM_DECLARE_ONE(floor)
LIBM_DECLARE_ONE(round)
LIBM_DECLARE_ONE(sqrt)
double fma(double x, double y, double z);
void sincos(double x, double *sine, double *cosine);

#endif
