/*
 * Records every change to the files below REC_ROOT, in order, for the replay of crash states; and
 * fails a sync on request. Preloaded into an unchanged Node, whose SQLite calls the C library.
 *
 *   cc -O2 -shared -fPIC -o recorder.so recorder.c -ldl -lpthread
 *   REC_ROOT=/abs/dir REC_LOG=/abs/log LD_PRELOAD=/abs/recorder.so node workload.ts ...
 *
 * A record: u32 operation, u32 path length, u64 offset, u64 length, path, data.
 * FAIL_SYNC=n: the n-th sync fails once with EIO, and its writes count as lost for good.
 * -shm files are left out: they are memory shared between processes, rebuilt on recovery.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPENED = 1, WRITTEN, SYNCED, TRUNCATED, UNLINKED, SYNC_FAILED };
#define FD_MAX 4096
#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = dlsym(RTLD_NEXT, #name)

static const char *root;
static int log_fd = -1;
static int fail_at = -1;
static int syncs;
static char *path_of[FD_MAX];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void start(void) {
  const char *value;
  root = getenv("REC_ROOT");
  if (!root) return;
  if ((value = getenv("REC_LOG")))
    log_fd = openat(AT_FDCWD, value, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if ((value = getenv("FAIL_SYNC"))) fail_at = atoi(value);
}

static void record(uint32_t operation, const char *path, uint64_t offset, const void *data,
                   uint64_t length) {
  if (log_fd < 0) return;
  REAL(writev);
  uint32_t head[2] = {operation, (uint32_t)strlen(path)};
  uint64_t range[2] = {offset, length};
  struct iovec parts[4] = {
      {head, 8}, {range, 16}, {(void *)path, head[1]}, {(void *)data, data ? length : 0}};
  pthread_mutex_lock(&mutex);
  if (real(log_fd, parts, 4) < 0) abort();
  pthread_mutex_unlock(&mutex);
}

static int is_ours(const char *path) {
  return root && path && !strncmp(path, root, strlen(root)) && !strstr(path, "-shm");
}

static char *path_at(int fd) { return fd >= 0 && fd < FD_MAX ? path_of[fd] : NULL; }

static void opened(int fd, const char *path, int flags) {
  if (fd < 0 || fd >= FD_MAX) return;
  free(path_of[fd]);
  path_of[fd] = NULL;
  if (!is_ours(path)) return;
  path_of[fd] = strdup(path);
  record(OPENED, path, (flags & O_TRUNC) ? 1 : 0, NULL, 0);
}

#define DEFINE_OPEN(name) \
  int name(const char *path, int flags, ...) { \
    REAL(name); \
    va_list list; \
    va_start(list, flags); \
    int mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(list, int) : 0; \
    va_end(list); \
    int fd = real(path, flags, mode); \
    opened(fd, path, flags); \
    return fd; \
  }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

int close(int fd) {
  REAL(close);
  if (path_at(fd)) {
    free(path_of[fd]);
    path_of[fd] = NULL;
  }
  return real(fd);
}

#define DEFINE_PWRITE(name, offset_type) \
  ssize_t name(int fd, const void *data, size_t length, offset_type offset) { \
    REAL(name); \
    ssize_t done = real(fd, data, length, offset); \
    char *path = path_at(fd); \
    if (path && done > 0) record(WRITTEN, path, offset, data, done); \
    return done; \
  }
DEFINE_PWRITE(pwrite, off_t)
DEFINE_PWRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t length) {
  REAL(write);
  char *path = path_at(fd);
  if (!path) return real(fd, data, length);
  ssize_t done = real(fd, data, length);
  off_t after = lseek(fd, 0, SEEK_CUR);
  if (done > 0) record(WRITTEN, path, after - done, data, done); /* O_APPEND moves it first. */
  return done;
}

#define DEFINE_SYNC(name) \
  int name(int fd) { \
    REAL(name); \
    char *path = path_at(fd); \
    if (path && fail_at >= 0 && __sync_add_and_fetch(&syncs, 1) == fail_at) { \
      record(SYNC_FAILED, path, 0, NULL, 0); \
      errno = EIO; \
      return -1; \
    } \
    int result = real(fd); \
    if (path && result == 0) record(SYNCED, path, 0, NULL, 0); \
    return result; \
  }
DEFINE_SYNC(fdatasync)
DEFINE_SYNC(fsync)

#define DEFINE_TRUNCATE(name, offset_type) \
  int name(int fd, offset_type length) { \
    REAL(name); \
    int result = real(fd, length); \
    char *path = path_at(fd); \
    if (path && result == 0) record(TRUNCATED, path, length, NULL, 0); \
    return result; \
  }
DEFINE_TRUNCATE(ftruncate, off_t)
DEFINE_TRUNCATE(ftruncate64, off64_t)

int unlink(const char *path) {
  REAL(unlink);
  int result = real(path);
  if (result == 0 && is_ours(path)) record(UNLINKED, path, 0, NULL, 0);
  return result;
}
