/* Stops the world before every change below one folder, so that one run shows every state a crash could leave.
 *
 * Loaded with LD_PRELOAD. Each call that changes files below CRASH_WATCH is an operation; operations are serialised by
 * one mutex and numbered from 1. A process killed between two operations leaves the folder exactly as it is then (the
 * page cache survives the process), so a copy taken before each operation is a crash state. A write is two operations,
 * its first half and the rest: the kernel may stop in the middle of one.
 *
 *   CRASH_WATCH       absolute path of the watched folder (required; without it nothing happens)
 *   CRASH_LOG         file that gets one line per operation: number, tab, call, tab, path
 *   CRASH_SNAPSHOTS   folder that gets a copy of the watched folder before each operation, named by its number
 *                     (none where nothing changed since the last)
 *   CRASH_KILL_AT     number of the operation before which the process kills itself with SIGKILL
 *   CRASH_FULL_AT     number of the operation from which on calls that need space fail with ENOSPC
 *   CRASH_FULL_COUNT  how many such calls fail before there is space again (default: all)
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "interposed_calls.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static __thread int inside;
static char watched[PATH_MAX], snapshots[PATH_MAX];
static size_t watched_length;
static int log_descriptor = -1;
static long operations, failures, kill_at, full_at, full_count = -1;
static int changed = 1; /* since the last snapshot */

/* Plain system calls: nothing here goes through the functions replaced below. */
static int raw_open(const char *path, int flags, int mode) { return syscall(SYS_openat, AT_FDCWD, path, flags, mode); }
static ssize_t raw_write(int fd, const void *data, size_t size) { return syscall(SYS_write, fd, data, size); }

static void give_up(const char *what, const char *path) {
    char line[PATH_MAX + 128];
    int length = snprintf(line, sizeof line, "crash_points: %s %s: %s\n", what, path, strerror(errno));
    raw_write(2, line, length);
    _exit(86);
}

static void start(void) {
    const char *value = getenv("CRASH_WATCH");
    if (!value || !*value) return;
    strncpy(watched, value, sizeof watched - 1);
    watched_length = strlen(watched);
    if ((value = getenv("CRASH_SNAPSHOTS"))) strncpy(snapshots, value, sizeof snapshots - 1);
    if ((value = getenv("CRASH_KILL_AT"))) kill_at = atol(value);
    if ((value = getenv("CRASH_FULL_AT"))) full_at = atol(value);
    if ((value = getenv("CRASH_FULL_COUNT"))) full_count = atol(value);
    if ((value = getenv("CRASH_LOG"))) {
        log_descriptor = raw_open(value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (log_descriptor < 0) give_up("open", value);
    }
}

static int below_watched(const char *path) {
    return watched_length && strncmp(path, watched, watched_length) == 0 &&
           (path[watched_length] == '/' || path[watched_length] == 0);
}

static int descriptor_path(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlink, link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return 1;
}

static int absolute_path(int folder, const char *given, char *path) {
    char base[PATH_MAX];
    if (given[0] == '/') return snprintf(path, PATH_MAX, "%s", given) < PATH_MAX;
    if (folder == AT_FDCWD) {
        if (syscall(SYS_getcwd, base, sizeof base) <= 0) return 0;
    } else if (!descriptor_path(folder, base)) {
        return 0;
    }
    return snprintf(path, PATH_MAX, "%s/%s", base, given) < PATH_MAX;
}

static void copy_file(const char *from, const char *to) {
    static char buffer[1 << 16];
    int source = raw_open(from, O_RDONLY | O_CLOEXEC, 0);
    if (source < 0) give_up("open", from);
    int target = raw_open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (target < 0) give_up("create", to);
    ssize_t size;
    while ((size = syscall(SYS_read, source, buffer, sizeof buffer)) > 0)
        if (raw_write(target, buffer, size) != size) give_up("copy", to);
    syscall(SYS_close, source);
    syscall(SYS_close, target);
}

static void copy_folder(const char *from, const char *to) {
    if (syscall(SYS_mkdirat, AT_FDCWD, to, 0755) < 0 && errno != EEXIST) give_up("mkdir", to);
    DIR *folder = opendir(from);
    if (!folder) {
        if (errno == ENOENT) return;
        give_up("opendir", from);
    }
    struct dirent *entry;
    while ((entry = readdir(folder))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        char *source, *target;
        if (asprintf(&source, "%s/%s", from, entry->d_name) < 0) give_up("allocate", from);
        if (asprintf(&target, "%s/%s", to, entry->d_name) < 0) give_up("allocate", to);
        if (entry->d_type == DT_DIR) copy_folder(source, target);
        else if (entry->d_type == DT_REG) copy_file(source, target);
        free(source);
        free(target);
    }
    closedir(folder);
}

/* Takes the mutex and counts one operation. Returns whether it must fail for lack of space. */
static int begin(const char *call, const char *path, int needs_space) {
    pthread_mutex_lock(&mutex);
    inside = 1;
    operations++;
    char line[2 * PATH_MAX];
    if (log_descriptor >= 0) {
        int length = snprintf(line, sizeof line, "%ld\t%s\t%s\n", operations, call, path);
        raw_write(log_descriptor, line, length);
    }
    if (snapshots[0] && changed) {
        snprintf(line, sizeof line, "%s/%ld", snapshots, operations);
        copy_folder(watched, line);
        changed = 0;
    }
    if (kill_at && operations == kill_at) syscall(SYS_kill, getpid(), SIGKILL);
    if (!needs_space || !full_at || operations < full_at) return 0;
    if (full_count >= 0 && failures >= full_count) return 0;
    failures++;
    return 1;
}

static void end(int changes) {
    changed |= changes;
    inside = 0;
    pthread_mutex_unlock(&mutex);
}

/* For the process itself: from the given operation (counted from now, 1 is the next) on, calls that need space fail. */
void crash_points_fill(long operations_from_now, long count) {
    pthread_mutex_lock(&mutex);
    full_at = operations_from_now > 0 ? operations + operations_from_now : 0;
    full_count = count;
    failures = 0;
    pthread_mutex_unlock(&mutex);
}

/* How many operations have begun. */
long crash_points_operations(void) { return operations; }

static int is_watched(const char *path) {
    pthread_once(&once, start);
    return watched_length && !inside && below_watched(path);
}

static int descriptor_is_watched(int fd, char *path) {
    pthread_once(&once, start);
    return watched_length && !inside && descriptor_path(fd, path) && below_watched(path);
}

static int path_is_watched(int folder, const char *given, char *path) {
    pthread_once(&once, start);
    return watched_length && !inside && given && absolute_path(folder, given, path) && is_watched(path);
}

#define GUARDED_CALL(type, call, path, needs_space, changes, perform) \
    do {                                                  \
        type outcome = -1;                                \
        int saved_errno;                                  \
        if (begin(call, path, needs_space)) errno = ENOSPC; \
        else outcome = (perform);                         \
        saved_errno = errno;                              \
        end(changes);                                     \
        errno = saved_errno;                              \
        return outcome;                                   \
    } while (0)

#define GUARDED(type, call, path, needs_space, perform) GUARDED_CALL(type, call, path, needs_space, 1, perform)

/* Opening changes something only when it creates or truncates. */
static int changes_something(const char *path, int flags) {
    struct stat status;
    int exists = syscall(SYS_newfstatat, AT_FDCWD, path, &status, 0) == 0;
    return (flags & O_CREAT && !exists) || (flags & O_TRUNC && exists && status.st_size > 0);
}

#define DEFINE_OPEN(name)                                                                        \
    int name(const char *given, int flags, ...) {                                                \
        char path[PATH_MAX];                                                                     \
        OPEN_MODE                                                                                \
        NEXT(name);                                                                              \
        if (!path_is_watched(AT_FDCWD, given, path) || !changes_something(path, flags))          \
            return next(given, flags, mode);                                                     \
        GUARDED(int, "open", path, flags &O_CREAT, next(given, flags, mode));                    \
    }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

#define DEFINE_OPENAT(name)                                                                      \
    int name(int folder, const char *given, int flags, ...) {                                    \
        char path[PATH_MAX];                                                                     \
        OPEN_MODE                                                                                \
        NEXT(name);                                                                              \
        if (!path_is_watched(folder, given, path) || !changes_something(path, flags))            \
            return next(folder, given, flags, mode);                                             \
        GUARDED(int, "open", path, flags &O_CREAT, next(folder, given, flags, mode));            \
    }
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

#define DEFINE_CREAT(name)                                                                       \
    int name(const char *given, mode_t mode) {                                                   \
        char path[PATH_MAX];                                                                     \
        NEXT(name);                                                                              \
        if (!path_is_watched(AT_FDCWD, given, path)) return next(given, mode);                   \
        GUARDED(int, "open", path, 1, next(given, mode));                                        \
    }
DEFINE_CREAT(creat)
DEFINE_CREAT(creat64)

/* Two operations, the first half and the rest: what a kill in the middle of the call may leave. */
static ssize_t torn_write(const char *path, int fd, const char *data, size_t size) {
    ssize_t (*next)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    size_t first = size / 2;
    ssize_t written = 0, rest = -1;
    int saved_errno;
    if (first) {
        if (begin("write", path, 1)) errno = ENOSPC, written = -1;
        else written = next(fd, data, first);
        saved_errno = errno;
        end(1);
        errno = saved_errno;
        if (written < (ssize_t)first) return written;
    }
    if (begin(first ? "write rest" : "write", path, 1)) errno = ENOSPC;
    else rest = next(fd, data + written, size - written);
    saved_errno = errno;
    end(1);
    errno = saved_errno;
    return rest < 0 ? (written ? written : -1) : written + rest;
}

ssize_t write(int fd, const void *data, size_t size) {
    char path[PATH_MAX];
    NEXT(write);
    if (!descriptor_is_watched(fd, path)) return next(fd, data, size);
    return torn_write(path, fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    size_t size = 0, position = 0;
    NEXT(writev);
    if (!descriptor_is_watched(fd, path)) return next(fd, parts, count);
    for (int part = 0; part < count; part++) size += parts[part].iov_len;
    char *joined = malloc(size + 1);
    if (!joined) give_up("allocate", path);
    for (int part = 0; part < count; part++) {
        memcpy(joined + position, parts[part].iov_base, parts[part].iov_len);
        position += parts[part].iov_len;
    }
    ssize_t written = torn_write(path, fd, joined, size);
    int saved_errno = errno;
    free(joined);
    errno = saved_errno;
    return written;
}

#define DEFINE_PWRITE(name, offset_type)                                                         \
    ssize_t name(int fd, const void *data, size_t size, offset_type offset) {                    \
        char path[PATH_MAX];                                                                     \
        NEXT(name);                                                                              \
        if (!descriptor_is_watched(fd, path)) return next(fd, data, size, offset);               \
        GUARDED(ssize_t, "pwrite", path, 1, next(fd, data, size, offset));                       \
    }
DEFINE_PWRITE(pwrite, off_t)
DEFINE_PWRITE(pwrite64, off64_t)

#define DEFINE_PWRITEV(name, offset_type)                                                        \
    ssize_t name(int fd, const struct iovec *parts, int count, offset_type offset) {             \
        char path[PATH_MAX];                                                                     \
        NEXT(name);                                                                              \
        if (!descriptor_is_watched(fd, path)) return next(fd, parts, count, offset);             \
        GUARDED(ssize_t, "pwritev", path, 1, next(fd, parts, count, offset));                    \
    }
DEFINE_PWRITEV(pwritev, off_t)
DEFINE_PWRITEV(pwritev64, off64_t)

#define DEFINE_FTRUNCATE(name, offset_type)                                                      \
    int name(int fd, offset_type size) {                                                         \
        char path[PATH_MAX];                                                                     \
        NEXT(name);                                                                              \
        if (!descriptor_is_watched(fd, path)) return next(fd, size);                             \
        GUARDED(int, "ftruncate", path, 0, next(fd, size));                                      \
    }
DEFINE_FTRUNCATE(ftruncate, off_t)
DEFINE_FTRUNCATE(ftruncate64, off64_t)

#define DEFINE_SYNC(name)                                                                        \
    int name(int fd) {                                                                           \
        char path[PATH_MAX];                                                                     \
        NEXT(name);                                                                              \
        if (!descriptor_is_watched(fd, path)) return next(fd);                                   \
        GUARDED_CALL(int, #name, path, 0, 0, next(fd));                                                \
    }
DEFINE_SYNC(fsync)
DEFINE_SYNC(fdatasync)

/* Moves count when either end is below the watched folder. */
static int move_is_watched(int from, const char *old, int to, const char *new, char *path) {
    return path_is_watched(from, old, path) || path_is_watched(to, new, path);
}

int rename(const char *old, const char *new) {
    char path[PATH_MAX];
    NEXT(rename);
    if (!move_is_watched(AT_FDCWD, old, AT_FDCWD, new, path)) return next(old, new);
    GUARDED(int, "rename", path, 0, next(old, new));
}

int renameat(int from, const char *old, int to, const char *new) {
    char path[PATH_MAX];
    NEXT(renameat);
    if (!move_is_watched(from, old, to, new, path)) return next(from, old, to, new);
    GUARDED(int, "rename", path, 0, next(from, old, to, new));
}

int renameat2(int from, const char *old, int to, const char *new, unsigned int flags) {
    char path[PATH_MAX];
    NEXT(renameat2);
    if (!move_is_watched(from, old, to, new, path)) return next(from, old, to, new, flags);
    GUARDED(int, "rename", path, 0, next(from, old, to, new, flags));
}

int link(const char *old, const char *new) {
    char path[PATH_MAX];
    NEXT(link);
    if (!path_is_watched(AT_FDCWD, new, path)) return next(old, new);
    GUARDED(int, "link", path, 1, next(old, new));
}

int linkat(int from, const char *old, int to, const char *new, int flags) {
    char path[PATH_MAX];
    NEXT(linkat);
    if (!path_is_watched(to, new, path)) return next(from, old, to, new, flags);
    GUARDED(int, "link", path, 1, next(from, old, to, new, flags));
}

int mkdir(const char *given, mode_t mode) {
    char path[PATH_MAX];
    NEXT(mkdir);
    if (!path_is_watched(AT_FDCWD, given, path)) return next(given, mode);
    GUARDED(int, "mkdir", path, 1, next(given, mode));
}

int mkdirat(int folder, const char *given, mode_t mode) {
    char path[PATH_MAX];
    NEXT(mkdirat);
    if (!path_is_watched(folder, given, path)) return next(folder, given, mode);
    GUARDED(int, "mkdir", path, 1, next(folder, given, mode));
}

int unlink(const char *given) {
    char path[PATH_MAX];
    NEXT(unlink);
    if (!path_is_watched(AT_FDCWD, given, path)) return next(given);
    GUARDED(int, "unlink", path, 0, next(given));
}

int unlinkat(int folder, const char *given, int flags) {
    char path[PATH_MAX];
    NEXT(unlinkat);
    if (!path_is_watched(folder, given, path)) return next(folder, given, flags);
    GUARDED(int, "unlink", path, 0, next(folder, given, flags));
}

int rmdir(const char *given) {
    char path[PATH_MAX];
    NEXT(rmdir);
    if (!path_is_watched(AT_FDCWD, given, path)) return next(given);
    GUARDED(int, "rmdir", path, 0, next(given));
}
