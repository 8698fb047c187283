// CLOCK_OFFSET_FILE -> a wall clock that is so many seconds off, in a process that preloads this.
//
// The file holds one native int64_t, read at each call, so a test moves the clock while the process
// runs. The monotonic clock stays as it is. Waits until a moment of the wall clock behave as the
// kernel's do: after a step back they last so much longer. Nothing is looked up before main(): dlsym()
// allocates, and an allocator that a program brings along is not up yet.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void map_offset(void) {
  const char *path = getenv("CLOCK_OFFSET_FILE");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) abort();
  void *page = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
  if (page == MAP_FAILED) abort();
  offset = page;
  close(file);
}

int clock_gettime(clockid_t id, struct timespec *now) {
  int status = (int)syscall(SYS_clock_gettime, id, now);
  if (status == 0 && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
  return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec exact;
  int status = clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return status;
}

time_t time(time_t *now) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (now) *now = exact.tv_sec;
  return exact.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
  return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

// librdkafka waits with this alone. Rust and tokio use the monotonic clock.
int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
  static int (*real)(cnd_t *, mtx_t *, const struct timespec *);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "cnd_timedwait");
  for (;;) {
    struct timespec now, kernels = *until;
    kernels.tv_sec -= *offset;
    int status = real(condition, mutex, &kernels);
    if (status != thrd_timedout) return status;
    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec > until->tv_sec) return thrd_timedout;
    if (now.tv_sec == until->tv_sec && now.tv_nsec >= until->tv_nsec) return thrd_timedout;
  }
}
