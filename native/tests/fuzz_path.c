/* F4: init/path.c in random trees full of symbolic links, compared with a model.  libFuzzer, with
 * the sanitizers.
 *
 * The input describes a tree and some paths.  The tree is created in ./root.  Three resolvers
 * handle each path: the kernel (openat2), the walk in user space that creates missing components,
 * and the model, which stores the tree as an array and resolves links by recursion.  All must end
 * at the same inode or with the same error.  At the end the tree must match the model, and the
 * directories beside ./root, where an escape would lead, must be empty.
 *
 * The caller provides an empty working directory.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../init/path.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define MUST(condition)   \
    do {                  \
        if (!(condition)) \
            abort();      \
    } while (0)

#define MAX_NODES 400
#define PATH_MOST 64

enum type { DIR_NODE, FILE_NODE, LINK_NODE };

struct node {
    enum type type;
    int parent;
    char name[4];
    char target[PATH_MOST];
};

static struct node nodes[MAX_NODES];
static int count, root;
static unsigned long paths;
static const uint8_t *input, *input_end;

static unsigned draw(unsigned below)
{
    return input < input_end ? *input++ % below : 0;
}

/* Draw a path of a few components, many of which exist. */
static void draw_path(char out[PATH_MOST])
{
    static const char *const parts[] = {"a", "b", "c", "d", "..", "a", "b", "..", ".", ""};
    struct text t = text_in(out, PATH_MOST);

    if (draw(3) == 0)
        text_str(&t, "/");
    for (unsigned left = draw(6) + 1; left; left--) {
        text_str(&t, parts[draw(sizeof(parts) / sizeof(parts[0]))]);
        if (left > 1 || draw(8) == 0)
            text_str(&t, "/");
    }
}

/* The model ------------------------------------------------------------------------------------ */

struct model {
    int create; /* create missing parts, like the walk; the kernel does not, and "file/" is not a file */
    int as_file;
    int plain;
    int links;
};

static int model_child(int dir, const char *name, size_t len)
{
    for (int i = 1; i < count; i++)
        if (nodes[i].parent == dir && strlen(nodes[i].name) == len && memcmp(nodes[i].name, name, len) == 0)
            return i;
    return -ENOENT;
}

static int model_make(int dir, const char *name, size_t len, enum type type)
{
    MUST(count < MAX_NODES && len < sizeof(nodes[0].name));
    nodes[count] = (struct node){.type = type, .parent = dir};
    memcpy(nodes[count].name, name, len);
    return count++;
}

/* Returns 1 if the path has a component other than "" and ".". */
static int something(const char *path)
{
    while (*path == '/' || (*path == '.' && (path[1] == '/' || path[1] == 0)))
        path++;
    return *path != 0;
}

/* Returns the node of `path` relative to `dir`, or -errno.  `more`: components follow it. */
static int model_walk(struct model *m, int dir, const char *path, int more)
{
    if (*path == '/')
        dir = 0;
    while (*path) {
        size_t len = strcspn(path, "/");
        const char *name = path, *rest = path + len;
        int after = more || (m->create ? something(rest) : *rest != 0);

        path = rest + (*rest == '/');
        if (len == 0 || (len == 1 && *name == '.'))
            continue;
        if (len == 2 && name[0] == '.' && name[1] == '.') {
            dir = nodes[dir].parent;
            continue;
        }
        int next = model_child(dir, name, len);
        if (next < 0 && m->create)
            next = model_make(dir, name, len, m->as_file && !after ? FILE_NODE : DIR_NODE);
        if (next < 0)
            return next;
        if (nodes[next].type == LINK_NODE) {
            if (m->plain || ++m->links > 40)
                return -ELOOP;
            next = model_walk(m, dir, nodes[next].target, after);
            if (next < 0)
                return next;
        }
        if (nodes[next].type == FILE_NODE)
            return m->as_file && !after ? next : -ENOTDIR;
        dir = next;
    }
    return dir;
}

static int model_kernel(const char *path, int as_file, int plain)
{
    struct model m = {.as_file = as_file, .plain = plain};

    return *path ? model_walk(&m, 0, path, 0) : -ENOENT;
}

static int model_create(const char *path, int as_file, int plain)
{
    struct model m = {.create = 1, .as_file = as_file, .plain = plain};
    int node = model_walk(&m, 0, path, 0);

    return node >= 0 && as_file && nodes[node].type == DIR_NODE ? -EISDIR : node;
}

/* The contract of create_in_root: an existing path as the kernel finds it, otherwise a new one. */
static int model_both(const char *path, int as_file, int plain)
{
    int node = model_kernel(path, as_file, plain);

    if (node == -ENOENT && *path)
        return model_create(path, as_file, plain);
    return node >= 0 && as_file && nodes[node].type == DIR_NODE ? -EISDIR : node;
}

/* The real tree -------------------------------------------------------------------------------- */

/* Returns the path of a node below ./root, without links and dots; "." for the root. */
static const char *place(int node, char out[4 * MAX_NODES])
{
    char *at = out + 4 * MAX_NODES - 1;

    *at = 0;
    for (; node > 0; node = nodes[node].parent) {
        size_t len = strlen(nodes[node].name);
        if (*at)
            *--at = '/';
        at -= len;
        memcpy(at, nodes[node].name, len);
    }
    return *at ? at : ".";
}

static void build(unsigned wanted)
{
    char where[4 * MAX_NODES];

    count = 1; /* the root is its own parent */
    while (wanted--) {
        int dir = (int)draw((unsigned)count);
        char name = (char)('a' + draw(4));
        enum type type = (enum type[]){DIR_NODE, DIR_NODE, FILE_NODE, LINK_NODE, LINK_NODE}[draw(5)];

        if (nodes[dir].type != DIR_NODE || model_child(dir, &name, 1) >= 0)
            continue;
        int node = model_make(dir, &name, 1, type);
        const char *path = place(node, where);
        if (type == DIR_NODE) {
            MUST(mkdirat(root, path, 0755) == 0);
        } else if (type == FILE_NODE) {
            MUST(mknodat(root, path, S_IFREG | 0644, 0) == 0);
        } else {
            draw_path(nodes[node].target);
            if (!nodes[node].target[0])
                nodes[node].target[0] = '/';
            MUST(symlinkat(nodes[node].target, root, path) == 0);
        }
    }
}

/* Check that the result matches the model, and close it. */
static void same(int fd, int want)
{
    char where[4 * MAX_NODES];
    struct stat got, node;

    MUST((fd < 0) == (want < 0));
    if (fd < 0) {
        MUST(fd == want);
        return;
    }
    MUST(fstat(fd, &got) == 0 && fstatat(root, place(want, where), &node, AT_SYMLINK_NOFOLLOW) == 0);
    MUST(got.st_ino == node.st_ino && got.st_dev == node.st_dev);
    MUST(want == 0 || got.st_mode == (nodes[want].type == DIR_NODE ? S_IFDIR | 0755u : S_IFREG | 0644u));
    close(fd);
}

static void try_parent(const char *path)
{
    char buf[PATH_BUF], parent[PATH_MOST];
    const char *name = NULL;
    size_t len = strlen(path);

    while (len && path[len - 1] == '/')
        len--;
    size_t last = len;
    while (last && path[last - 1] != '/')
        last--;
    memcpy(parent, path, last);
    parent[last] = 0;
    size_t size = len - last;
    int dots = size && size < 3 && path[last] == '.' && (size == 1 || path[last + 1] == '.');
    int fd = parent_in_root(root, path, &name, buf);
    if (!size || dots) {
        MUST(fd == -EINVAL);
        return;
    }
    same(fd, model_both(last ? parent : "/", 0, 0));
    MUST(fd < 0 || (strlen(name) == size && memcmp(name, path + last, size) == 0));
}

static void try_path(void)
{
    char path[PATH_MOST];
    unsigned kind = draw(4);
    int as_file = (int)draw(2), plain = draw(4) == 0;
    int flags = as_file ? O_PATH : O_PATH | O_DIRECTORY;

    draw_path(path);
    if (count > MAX_NODES - 100)
        return;
    paths++;
    same(plain ? open_in_root_plain(root, path, flags) : open_in_root(root, path, flags),
         model_kernel(path, as_file, plain));
    if (kind == 0)
        try_parent(path);
    else if (kind == 1)
        same((plain ? create_in_root_plain : create_in_root)(root, path, as_file),
             model_both(path, as_file, plain));
    else if (kind == 2)
        same(create(root, path, as_file, plain), model_create(path, as_file, plain));
}

/* Remove everything in the model.  The root is then empty. */
static void tear_down(void)
{
    char where[4 * MAX_NODES];

    while (--count)
        MUST(unlinkat(root, place(count, where), nodes[count].type == DIR_NODE ? AT_REMOVEDIR : 0) == 0);
    close(root);
    MUST(rmdir("root") == 0 && rmdir("a") == 0 && rmdir("b") == 0);
    MUST(access("c", F_OK) < 0 && access("d", F_OK) < 0);
}

/* One input contains many paths. */
static void say_paths(void)
{
    fprintf(stderr, "stat::paths_resolved: %lu\n", paths);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    atexit(say_paths);
    umask(077); /* the caller's umask must not affect what we create */
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input = data;
    input_end = data + size;
    MUST(mkdir("root", 0755) == 0 && mkdir("a", 0755) == 0 && mkdir("b", 0755) == 0);
    root = open("root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int next = dup(root);
    close(next);
    mode_t mask = umask(0);
    unsigned wanted = draw(24);
    build(wanted);
    umask(mask);
    while (input < input_end)
        try_path();
    int after = dup(root); /* no descriptor leaked */
    MUST(after == next);
    close(after);
    tear_down();
    return 0;
}
