/* A counter with something that a checkpoint has to deal with: a file lock, a connected unix
 * socket, dirty memory. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int fail(const char *what)
{
    perror(what);
    return 1;
}

/* Returns a lock's descriptor; errors are fatal. */
static int lock(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        exit(fail(path));
    return fd;
}

static int reach(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        exit(fail(path));
    return fd;
}

/* client lock PATH | unix PATH | memory MIB */
int main(int argc, char **argv)
{
    size_t size = 0;
    unsigned char *memory = NULL;
    int fd = -1;

    if (argc != 3)
        return 2;
    if (!strcmp(argv[1], "lock"))
        lock(argv[2]);
    else if (!strcmp(argv[1], "unix"))
        fd = reach(argv[2]);
    else
        size = (size_t)atoi(argv[2]) << 20;
    if (size) {
        memory = malloc(size);
        if (!memory)
            return fail("malloc");
        for (size_t at = 0; at < size; at++)
            memory[at] = (unsigned char)(at * 2654435761u >> 13);
    }
    for (unsigned i = 1;; i++) {
        char text[32];
        int length = snprintf(text, sizeof(text), "%u\n", i);
        for (size_t at = 0; at < size; at += 4096) /* a page that came back as another one */
            if (memory[at] != (unsigned char)(at * 2654435761u >> 13))
                return fail("memory differs");
        /* nobody may be reading at the moment */
        if (fd >= 0 && send(fd, text, (size_t)length, MSG_DONTWAIT) < 0 && errno != EAGAIN)
            return fail("send");
        if (write(1, text, (size_t)length) < 0)
            return fail("write");
        usleep(50000);
    }
}
