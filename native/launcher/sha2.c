/* SHA-2 (FIPS 180-4), as the builtin module _sha2: for an interpreter whose static library lacks
 * its own (inittab.py). The digests of images need it.
 */
#include "launcher.h"

#include <string.h>

/* The constants of SHA-256 and SHA-224 are the halves of these. */
static const uint64_t round_constants[80] = {
    0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc, 0x3956c25bf348b538,
    0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118, 0xd807aa98a3030242, 0x12835b0145706fbe,
    0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2, 0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235,
    0xc19bf174cf692694, 0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
    0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5, 0x983e5152ee66dfab,
    0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4, 0xc6e00bf33da88fc2, 0xd5a79147930aa725,
    0x06ca6351e003826f, 0x142929670a0e6e70, 0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed,
    0x53380d139d95b3df, 0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
    0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30, 0xd192e819d6ef5218,
    0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8, 0x19a4c116b8d2d0c8, 0x1e376c085141ab53,
    0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8, 0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373,
    0x682e6ff3d6b2b8a3, 0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
    0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b, 0xca273eceea26619c,
    0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178, 0x06f067aa72176fba, 0x0a637dc5a2c898a6,
    0x113f9804bef90dae, 0x1b710b35131c471b, 0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc,
    0x431d67c49c100d4c, 0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817,
};
static const uint64_t initial[2][8] = {
    {
        0x6a09e667f3bcc908,
        0xbb67ae8584caa73b,
        0x3c6ef372fe94f82b,
        0xa54ff53a5f1d36f1,
        0x510e527fade682d1,
        0x9b05688c2b3e6c1f,
        0x1f83d9abfb41bd6b,
        0x5be0cd19137e2179,
    },
    {
        0xcbbb9d5dc1059ed8,
        0x629a292a367cd507,
        0x9159015a3070dd17,
        0x152fecd8f70e5939,
        0x67332667ffc00b31,
        0x8eb44a8768581511,
        0xdb0c2e0d64f98fa7,
        0x47b5481dbefa4fa4,
    },
};

/* wide: words of 64 bits. */
static const struct kind {
    const char *name;
    int wide, digest_size;
} kinds[] = {{"sha224", 0, 28}, {"sha256", 0, 32}, {"sha384", 1, 48}, {"sha512", 1, 64}};

typedef struct {
    PyObject_HEAD const struct kind *kind;
    uint64_t state[8], length;
    unsigned char block[128]; /* the first length % block_size() bytes are used */
} Hash;

static size_t block_size(const Hash *hash)
{
    return hash->kind->wide ? 128 : 64;
}

static uint64_t load(const unsigned char *bytes, int size)
{
    uint64_t value = 0;
    for (int i = 0; i < size; i++)
        value = value << 8 | bytes[i];
    return value;
}

static void store(unsigned char *bytes, uint64_t value, int size)
{
    for (int i = size - 1; i >= 0; i--, value >>= 8)
        bytes[i] = (unsigned char)value;
}

/* One block; WORD is the type of a word, the other parameters are distances of rotations and
 * shifts. */
#define ROTATE(x, n) ((x) >> (n) | (x) << (8 * sizeof(x) - (n)))
#define COMPRESS(NAME, WORD, ROUNDS, A, B, C, D, E, F, G, H, I, J, K, L)              \
    static void NAME(uint64_t state[8], const unsigned char *block)                   \
    {                                                                                 \
        WORD w[ROUNDS], s[8];                                                         \
        for (int i = 0; i < 16; i++)                                                  \
            w[i] = (WORD)load(block + (size_t)i * sizeof(WORD), sizeof(WORD));        \
        for (int i = 16; i < ROUNDS; i++) {                                           \
            WORD x = w[i - 15], y = w[i - 2];                                         \
            w[i] = w[i - 16] + (ROTATE(x, A) ^ ROTATE(x, B) ^ x >> C) + w[i - 7] +    \
                   (ROTATE(y, D) ^ ROTATE(y, E) ^ y >> F);                            \
        }                                                                             \
        for (int i = 0; i < 8; i++)                                                   \
            s[i] = (WORD)state[i];                                                    \
        _Pragma("GCC unroll 8") for (int i = 0; i < ROUNDS; i++)                      \
        {                                                                             \
            WORD constant = (WORD)(round_constants[i] >> (64 - 8 * sizeof(WORD)));    \
            WORD one = s[7] + (ROTATE(s[4], G) ^ ROTATE(s[4], H) ^ ROTATE(s[4], I)) + \
                       ((s[4] & s[5]) ^ (~s[4] & s[6])) + constant + w[i];            \
            WORD two = (ROTATE(s[0], J) ^ ROTATE(s[0], K) ^ ROTATE(s[0], L)) +        \
                       ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));               \
            _Pragma("GCC unroll 8") for (int j = 7; j > 0; j--) s[j] = s[j - 1];      \
            s[4] += one;                                                              \
            s[0] = one + two;                                                         \
        }                                                                             \
        for (int i = 0; i < 8; i++)                                                   \
            state[i] = (WORD)(state[i] + s[i]);                                       \
    }
COMPRESS(compress_32, uint32_t, 64, 7, 18, 3, 17, 19, 10, 6, 11, 25, 2, 13, 22)
COMPRESS(compress_64, uint64_t, 80, 1, 8, 7, 19, 61, 6, 14, 18, 41, 28, 34, 39)

static void compress(Hash *hash, const unsigned char *block)
{
    (hash->kind->wide ? compress_64 : compress_32)(hash->state, block);
}

static void add(Hash *hash, const unsigned char *data, size_t len)
{
    size_t size = block_size(hash), used = hash->length % size;
    hash->length += len;
    while (len > 0) {
        size_t part = len < size - used ? len : size - used;
        if (part == size) {
            compress(hash, data);
        } else {
            memcpy(hash->block + used, data, part);
            if (used + part == size)
                compress(hash, hash->block);
            used = (used + part) % size;
        }
        data += part;
        len -= part;
    }
}

static PyObject *m_update(PyObject *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    /* Callers use an object in one thread at a time. */
    Py_BEGIN_ALLOW_THREADS;
    add((Hash *)self, view.buf, (size_t)view.len);
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

static void finish(const Hash *hash, unsigned char digest[64])
{
    static const unsigned char padding[128] = {0x80};
    Hash copy = *hash;
    unsigned char bits[16] = {0};
    size_t size = block_size(hash), tail = size / 8, used = hash->length % size;
    store(bits + tail - 8, hash->length << 3, 8);
    if (tail == 16)
        store(bits, hash->length >> 61, 8);
    add(&copy, padding, (used < size - tail ? size : 2 * size) - tail - used);
    add(&copy, bits, tail);
    for (size_t i = 0; i < 8; i++)
        store(digest + i * size / 16, copy.state[i], (int)size / 16);
}

static PyObject *m_digest(PyObject *self, PyObject *unused)
{
    unsigned char digest[64];
    (void)unused;
    finish((Hash *)self, digest);
    return PyBytes_FromStringAndSize((char *)digest, ((Hash *)self)->kind->digest_size);
}

static PyObject *m_hexdigest(PyObject *self, PyObject *unused)
{
    PyObject *digest = m_digest(self, unused);
    PyObject *text = digest ? PyObject_CallMethod(digest, "hex", NULL) : NULL;
    Py_XDECREF(digest);
    return text;
}

static PyObject *m_copy(PyObject *self, PyObject *unused)
{
    (void)unused;
    Hash *hash = (Hash *)self, *copy = PyObject_New(Hash, Py_TYPE(self));
    if (copy) {
        copy->kind = hash->kind;
        copy->length = hash->length;
        memcpy(copy->state, hash->state, sizeof copy->state);
        memcpy(copy->block, hash->block, sizeof copy->block);
    }
    return (PyObject *)copy;
}

static PyObject *get_name(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(((Hash *)self)->kind->name);
}

static PyObject *get_digest_size(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((Hash *)self)->kind->digest_size);
}

static PyObject *get_block_size(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(block_size((Hash *)self));
}

static void deallocate(PyObject *self)
{
    PyObject_Free(self);
}

static PyMethodDef methods[] = {
    {"update", m_update, METH_O, NULL},
    {"digest", m_digest, METH_NOARGS, NULL},
    {"hexdigest", m_hexdigest, METH_NOARGS, NULL},
    {"copy", m_copy, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef members[] = {
    {"name", get_name, NULL, NULL, NULL},
    {"digest_size", get_digest_size, NULL, NULL, NULL},
    {"block_size", get_block_size, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyTypeObject hash_type = {PyVarObject_HEAD_INIT(NULL, 0).tp_name = "_sha2.Hash",
                                 .tp_basicsize = sizeof(Hash),
                                 .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                 .tp_dealloc = deallocate,
                                 .tp_methods = methods,
                                 .tp_getset = members};

/* `usedforsecurity`, the only keyword that callers use, changes nothing. */
static PyObject *make(const struct kind *kind, PyObject *args)
{
    PyObject *data = NULL;
    if (!PyArg_ParseTuple(args, "|O", &data))
        return NULL;
    Hash *hash = PyObject_New(Hash, &hash_type);
    if (!hash)
        return NULL;
    hash->kind = kind;
    hash->length = 0;
    memset(hash->block, 0, sizeof hash->block);
    for (int i = 0; i < 8; i++) {
        int short_one = kind->digest_size == 28 || kind->digest_size == 48;
        uint64_t word = initial[short_one][i];
        hash->state[i] = kind->wide ? word : short_one ? word & 0xFFFFFFFF : word >> 32;
    }
    PyObject *done = data ? m_update((PyObject *)hash, data) : Py_NewRef(Py_None);
    if (!done)
        Py_CLEAR(hash);
    Py_XDECREF(done);
    return (PyObject *)hash;
}

#define FUNCTION(NUMBER)                                                               \
    static PyObject *make_##NUMBER(PyObject *self, PyObject *args, PyObject *keywords) \
    {                                                                                  \
        (void)self;                                                                    \
        (void)keywords;                                                                \
        return make(&kinds[NUMBER], args);                                             \
    }
FUNCTION(0)
FUNCTION(1)
FUNCTION(2)
FUNCTION(3)
#define ROW(NAME, NUMBER)                                                                    \
    {                                                                                        \
        NAME, (PyCFunction)(void (*)(void))make_##NUMBER, METH_VARARGS | METH_KEYWORDS, NULL \
    }
static PyMethodDef functions[] = {
    ROW("sha224", 0), ROW("sha256", 1), ROW("sha384", 2), ROW("sha512", 3), {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_sha2", .m_size = -1,
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit__sha2(void)
{
    return PyType_Ready(&hash_type) < 0 ? NULL : PyModule_Create(&definition);
}
