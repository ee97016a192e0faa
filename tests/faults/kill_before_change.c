/* Loaded before other libraries, sends a process SIGKILL right before a change
   of the files below a folder: the n-th of opening one to write, writing,
   closing, copying, renaming, removing, and making or removing a folder.
   TensorFlow's files buffer what is written until they are closed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char watched[4096];
static int wanted = 0;
static int seen = 0;

void kill_before_change(const char *folder, int number) {
  strncpy(watched, folder, sizeof watched - 1);
  wanted = number;
}

static void change(const char *path) {
  /* TensorBoard's files are written by a thread, at any time. */
  if (!wanted || !path || strncmp(path, watched, strlen(watched)) ||
      strstr(path, "/events.out"))
    return;
  if (__sync_add_and_fetch(&seen, 1) == wanted) {
    kill(getpid(), SIGKILL);
    pause();
  }
}

static void change_file(int file) {
  char link[64], path[4096];
  if (!wanted)
    return;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length > 0) {
    path[length] = 0;
    change(path);
  }
}

/* Defines `real`, the function that ours stands in front of. */
#define REAL(result, name, ...)              \
  static result (*real)(__VA_ARGS__) = NULL; \
  if (!real)                                 \
    real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define ON_PATH(name)              \
  int name(const char *path) {     \
    REAL(int, name, const char *); \
    change(path);                  \
    return real(path);             \
  }

ON_PATH(unlink)
ON_PATH(rmdir)

int mkdir(const char *path, mode_t mode) {
  REAL(int, mkdir, const char *, mode_t);
  change(path);
  return real(path, mode);
}

int rename(const char *from, const char *to) {
  REAL(int, rename, const char *, const char *);
  change(to);
  return real(from, to);
}

#define OPEN(name)                                  \
  int name(const char *path, int flags, ...) {      \
    REAL(int, name, const char *, int, ...);        \
    va_list arguments;                              \
    va_start(arguments, flags);                     \
    int mode = va_arg(arguments, int);              \
    va_end(arguments);                              \
    if ((flags & O_ACCMODE) != O_RDONLY)            \
      change(path);                                 \
    return real(path, flags, mode);                 \
  }

OPEN(open)
OPEN(open64)

#define FOPEN(name)                                 \
  FILE *name(const char *path, const char *mode) {  \
    REAL(FILE *, name, const char *, const char *); \
    if (mode[0] != 'r')                             \
      change(path);                                 \
    return real(path, mode);                        \
  }

FOPEN(fopen)
FOPEN(fopen64)

int fclose(FILE *stream) {
  REAL(int, fclose, FILE *);
  int file = fileno(stream);
  if ((fcntl(file, F_GETFL) & O_ACCMODE) != O_RDONLY)
    change_file(file);
  return real(stream);
}

ssize_t write(int file, const void *data, size_t size) {
  REAL(ssize_t, write, int, const void *, size_t);
  change_file(file);
  return real(file, data, size);
}

#define SENDFILE(name)                                         \
  ssize_t name(int to, int from, off_t *offset, size_t size) { \
    REAL(ssize_t, name, int, int, off_t *, size_t);            \
    change_file(to);                                           \
    return real(to, from, offset, size);                       \
  }

SENDFILE(sendfile)
SENDFILE(sendfile64)
