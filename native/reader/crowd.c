/* Keys chosen to collide.
 *
 * Python hashes strings with SipHash-1-3. Its key is random in an ordinary interpreter but a
 * constant in the launcher, because the dicts of the start-up snapshot are laid out by it.
 * Anyone with the executable can therefore compute keys that all map to one slot of a dict, and
 * 40,000 of them cost seconds in every verb. No honest document has such keys; an object with
 * them is rejected. The probes of a dict are counted for each size that it has while it grows.
 */
#include "reader.h"

#include <stdint.h>
#include <string.h>

/* The most probes per key that are accepted; ordinary keys take less than one. */
enum { STEPS = 8, SHIFT = 5 };

static int same(PyObject *one, PyObject *other)
{
    /* Different strings rarely have equal hashes, so comparing them costs nothing. */
    return PyUnicode_GET_LENGTH(one) == PyUnicode_GET_LENGTH(other) && PyUnicode_Compare(one, other) == 0;
}

/* Whether a dict of `size` slots needs more than STEPS probes per key. */
static int collide(PyObject *const *keys, const Py_hash_t *hashes, size_t count, size_t stride,
                   uint32_t *slots, size_t size)
{
    size_t mask = size - 1, steps = 0, most = count * STEPS;
    memset(slots, 0, size * sizeof *slots);
    for (size_t i = 0; i < count && steps <= most; i++) {
        /* lookdict of CPython's Objects/dictobject.c */
        size_t perturb = (size_t)hashes[i], at = perturb & mask;
        while (slots[at] && steps <= most) {
            size_t there = slots[at] - 1;
            if (hashes[there] == hashes[i] && same(keys[there * stride], keys[i * stride]))
                break; /* a duplicate, which is reported separately */
            steps++;
            perturb >>= SHIFT;
            at = (at * 5 + perturb + 1) & mask;
        }
        slots[at] = (uint32_t)(i + 1);
    }
    return steps > most;
}

int keys_crowd(PyObject *const *keys, size_t count, size_t stride)
{
    size_t largest = 8;
    while (largest / 2 < count)
        largest *= 2;
    Py_hash_t *hashes = PyMem_Malloc(count * sizeof *hashes);
    uint32_t *slots = PyMem_Malloc(largest * sizeof *slots);
    int crowd = 0;
    if (!hashes || !slots) {
        PyErr_NoMemory();
        crowd = -1;
    }
    for (size_t i = 0; i < count && crowd == 0; i++) {
        hashes[i] = PyObject_Hash(keys[i * stride]);
        if (hashes[i] == -1)
            crowd = -1;
    }
    for (size_t size = 8; size <= largest && crowd == 0; size *= 2) {
        size_t fit = size * 2 / 3 < count ? size * 2 / 3
                                          : count; /* a dict grows when two thirds of it are used */
        crowd = collide(keys, hashes, fit, stride, slots, size);
    }
    PyMem_Free(slots);
    PyMem_Free(hashes);
    return crowd;
}
