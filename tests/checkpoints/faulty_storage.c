/* Storage behind a bad network, for every reader and writer of a process, Python or C++: loaded with LD_PRELOAD.
 *
 * Each call on a path below FAULTS_BELOW waits FAULTS_DELAY_US microseconds, and FAULTS_PER_THOUSAND of a thousand of
 * them fail with EIO before anything is done, chosen by a hash of FAULTS_SEED and the number of the call. FAULTS_LOG
 * gets one line per fault: the call, tab, the path.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interposed_calls.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const char *below;
static size_t below_length;
static long per_thousand, delay, seed;
static int log_descriptor = -1;
static atomic_long calls;

static long number(const char *name) {
    const char *value = getenv(name);
    return value ? atol(value) : 0;
}

static void start(void) {
    below = getenv("FAULTS_BELOW");
    below_length = below ? strlen(below) : 0;
    per_thousand = number("FAULTS_PER_THOUSAND");
    delay = number("FAULTS_DELAY_US");
    seed = number("FAULTS_SEED");
    const char *log = getenv("FAULTS_LOG");
    if (log) log_descriptor = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

/* Returns whether this call is to fail; errno is set then. */
static int fails(const char *call, const char *path) {
    pthread_once(&once, start);
    if (!below_length || path[0] != '/' || strncmp(path, below, below_length)) return 0;
    if (delay) usleep(delay);
    uint64_t hash = (uint64_t)atomic_fetch_add(&calls, 1) + ((uint64_t)seed << 32);
    hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u; /* the finalizer of splitmix64 */
    hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
    if ((long)((hash ^ (hash >> 31)) % 1000) >= per_thousand) return 0;
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s\t%s\n", call, path);
    if (log_descriptor >= 0) syscall(SYS_write, log_descriptor, line, length);
    errno = EIO;
    return 1;
}

static int descriptor_fails(const char *call, int descriptor) {
    char link[64], path[PATH_MAX];
    pthread_once(&once, start);
    if (!below_length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = syscall(SYS_readlink, link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return fails(call, path);
}

#define OPEN(name)                                    \
    int name(const char *path, int flags, ...) {      \
        OPEN_MODE                                     \
        NEXT(name);                                   \
        return fails("open", path) ? -1 : next(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                         \
    int name(int folder, const char *path, int flags, ...) { \
        OPEN_MODE                                            \
        NEXT(name);                                          \
        return fails("open", path) ? -1 : next(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define ON_DESCRIPTOR(type, name, call, parameters, ...)     \
    type name parameters {                                   \
        NEXT(name);                                          \
        return descriptor_fails(call, fd) ? -1 : next(__VA_ARGS__); \
    }
ON_DESCRIPTOR(ssize_t, read, "read", (int fd, void *data, size_t size), fd, data, size)
ON_DESCRIPTOR(ssize_t, pread, "read", (int fd, void *data, size_t size, off_t at), fd, data, size, at)
ON_DESCRIPTOR(ssize_t, pread64, "read", (int fd, void *data, size_t size, off64_t at), fd, data, size, at)
ON_DESCRIPTOR(ssize_t, write, "write", (int fd, const void *data, size_t size), fd, data, size)
ON_DESCRIPTOR(ssize_t, pwrite, "write", (int fd, const void *data, size_t size, off_t at), fd, data, size, at)
ON_DESCRIPTOR(ssize_t, pwrite64, "write", (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)
ON_DESCRIPTOR(int, fsync, "sync", (int fd), fd)
ON_DESCRIPTOR(int, fdatasync, "sync", (int fd), fd)

#define ON_PATH(name, call, parameters, ...)      \
    int name parameters {                         \
        NEXT(name);                               \
        return fails(call, path) ? -1 : next(__VA_ARGS__); \
    }
ON_PATH(mkdir, "mkdir", (const char *path, mode_t mode), path, mode)
ON_PATH(rename, "rename", (const char *path, const char *to), path, to)
ON_PATH(unlink, "remove", (const char *path), path)
ON_PATH(rmdir, "remove", (const char *path), path)
