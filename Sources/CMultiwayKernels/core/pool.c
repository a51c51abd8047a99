// A pool of n − 1 sleeping threads and the caller. Every thread has a range of tasks of its own, the same part of each job, so that
// what one kernel leaves in a core's caches the next one finds there. Who has finished takes from the ranges of the others, one task
// at a time: uneven tasks and a busy machine even out, and a thread that wakes too late for a job simply misses it.
#include "context.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

/// About 300 µs of polling before a thread sleeps: longer than the gap between two kernels of one model.
#define SPINS 6000

/// The tasks from `next` to `end` are still to be done. Alone in its cache line.
typedef struct {
  _Alignas(64) atomic_size_t next;
  size_t end;
} task_range;

struct mwk_pool {
  pthread_mutex_t turn;  // held for a whole job: jobs from different threads take turns
  pthread_mutex_t lock;  // guards everything below that is not atomic
  pthread_cond_t wake, idle;
  atomic_uint generation;
  atomic_size_t active;
  bool open, stop, caller_sleeps;
  task_range *ranges;  // one a thread
  size_t sleepers, spins;
  mwk_task fn;
  void *argument;
  void **scratch;
  size_t scratch_bytes, threads, started;
  pthread_t *handles;
};

typedef struct {
  mwk_pool *pool;
  size_t index;
} worker_argument;

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

/// Runs the tasks of a thread's own range, then what is left of the others'.
static void run_tasks(mwk_pool *pool, mwk_task fn, void *argument, size_t index) {
  for (size_t i = 0; i < pool->threads; i++) {
    task_range *range = &pool->ranges[(index + i) % pool->threads];
    for (;;) {
      size_t task = atomic_fetch_add_explicit(&range->next, 1, memory_order_relaxed);
      if (task >= range->end) break;
      fn(argument, task, pool->scratch[index]);
    }
  }
}

/// Sleeps until a job newer than `seen` or the end; returns with the lock held.
static void await_job(mwk_pool *pool, unsigned seen) {
  for (size_t i = 0; i < pool->spins && atomic_load_explicit(&pool->generation, memory_order_acquire) == seen; i++)
    relax();
  pthread_mutex_lock(&pool->lock);
  while (atomic_load_explicit(&pool->generation, memory_order_relaxed) == seen && !pool->stop) {
    pool->sleepers++;
    pthread_cond_wait(&pool->wake, &pool->lock);
    pool->sleepers--;
  }
}

static void *worker(void *opaque) {
  worker_argument me = *(worker_argument *)opaque;
  free(opaque);
  mwk_pool *pool = me.pool;
  unsigned seen = 0;
  for (;;) {
    await_job(pool, seen);
    if (pool->stop) {
      pthread_mutex_unlock(&pool->lock);
      return NULL;
    }
    seen = atomic_load_explicit(&pool->generation, memory_order_relaxed);
    bool join = pool->open;
    mwk_task fn = pool->fn;
    void *argument = pool->argument;
    if (join) atomic_fetch_add_explicit(&pool->active, 1, memory_order_relaxed);
    pthread_mutex_unlock(&pool->lock);
    if (!join) continue;
    run_tasks(pool, fn, argument, me.index);
    if (atomic_fetch_sub_explicit(&pool->active, 1, memory_order_acq_rel) == 1) {
      pthread_mutex_lock(&pool->lock);
      if (pool->caller_sleeps) pthread_cond_signal(&pool->idle);
      pthread_mutex_unlock(&pool->lock);
    }
  }
}

/// Grows every thread's scratch; only between jobs, under `turn`.
static mwk_status reserve(mwk_pool *pool, size_t bytes) {
  bytes = mwk_round_up(bytes, 4096);
  if (bytes <= pool->scratch_bytes) return mwk_ok;
  pthread_mutex_lock(&pool->lock);
  mwk_status status = mwk_ok;
  for (size_t i = 0; i < pool->threads; i++) {
    void *larger = aligned_alloc(4096, bytes);
    if (!larger) {
      status = mwk_out_of_memory;
      break;
    }
    free(pool->scratch[i]);
    pool->scratch[i] = larger;
  }
  // After a failure some threads hold more than scratch_bytes says: harmless.
  if (status == mwk_ok) pool->scratch_bytes = bytes;
  pthread_mutex_unlock(&pool->lock);
  return status;
}

static void announce(mwk_pool *pool, size_t count, mwk_task fn, void *argument) {
  pthread_mutex_lock(&pool->lock);
  pool->fn = fn, pool->argument = argument, pool->open = true;
  for (size_t i = 0, first = 0; i < pool->threads; i++) {
    size_t share = count / pool->threads + (i < count % pool->threads);
    atomic_store_explicit(&pool->ranges[i].next, first, memory_order_relaxed);
    pool->ranges[i].end = first += share;
  }
  atomic_fetch_add_explicit(&pool->generation, 1, memory_order_release);
  if (pool->sleepers > 0) pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
}

static void await_workers(mwk_pool *pool) {
  pthread_mutex_lock(&pool->lock);
  pool->open = false;  // from here on nobody joins
  pthread_mutex_unlock(&pool->lock);
  for (size_t i = 0; i < pool->spins; i++) {
    if (atomic_load_explicit(&pool->active, memory_order_acquire) == 0) return;
    relax();
  }
  pthread_mutex_lock(&pool->lock);
  pool->caller_sleeps = true;
  while (atomic_load_explicit(&pool->active, memory_order_acquire) != 0) pthread_cond_wait(&pool->idle, &pool->lock);
  pool->caller_sleeps = false;
  pthread_mutex_unlock(&pool->lock);
}

mwk_status mwk_pool_run(mwk_pool *pool, size_t count, size_t scratch_bytes, mwk_task fn, void *argument) {
  if (count == 0) return mwk_ok;
  pthread_mutex_lock(&pool->turn);
  mwk_status status = reserve(pool, scratch_bytes);
  if (status == mwk_ok) {
    if (pool->threads == 1 || count == 1) {
      for (size_t task = 0; task < count; task++) fn(argument, task, pool->scratch[0]);
    } else {
      announce(pool, count, fn, argument);
      run_tasks(pool, fn, argument, 0);
      await_workers(pool);
    }
  }
  pthread_mutex_unlock(&pool->turn);
  return status;
}

static mwk_status start_worker(mwk_pool *pool, size_t index) {
  worker_argument *argument = malloc(sizeof *argument);
  if (!argument) return mwk_out_of_memory;
  *argument = (worker_argument){pool, index};
  if (pthread_create(&pool->handles[pool->started], NULL, worker, argument) != 0) {
    free(argument);
    return mwk_no_thread;
  }
  pool->started++;
  return mwk_ok;
}

mwk_status mwk_pool_create(size_t threads, mwk_pool **result) {
  *result = NULL;
  mwk_pool *pool = calloc(1, sizeof *pool);
  if (!pool) return mwk_out_of_memory;
  pthread_mutex_init(&pool->turn, NULL);
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->wake, NULL);
  pthread_cond_init(&pool->idle, NULL);
  pool->threads = threads;
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  pool->spins = cores > 0 && threads <= (size_t)cores ? SPINS : 0;  // polling would starve a thread that works
  pool->scratch = calloc(threads, sizeof *pool->scratch);
  pool->handles = calloc(threads, sizeof *pool->handles);
  bool fits = threads < SIZE_MAX / sizeof *pool->ranges;
  pool->ranges = fits ? aligned_alloc(_Alignof(task_range), threads * sizeof *pool->ranges) : NULL;
  mwk_status status = pool->scratch && pool->handles && pool->ranges ? mwk_ok : mwk_out_of_memory;
  for (size_t i = 1; status == mwk_ok && i < threads; i++) status = start_worker(pool, i);
  if (status != mwk_ok) {
    mwk_pool_destroy(pool);
    return status;
  }
  *result = pool;
  return mwk_ok;
}

void mwk_pool_destroy(mwk_pool *pool) {
  if (!pool) return;
  pthread_mutex_lock(&pool->lock);
  pool->stop = true;
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
  for (size_t i = 0; i < pool->started; i++) pthread_join(pool->handles[i], NULL);
  for (size_t i = 0; pool->scratch && i < pool->threads; i++) free(pool->scratch[i]);
  free(pool->scratch);
  free(pool->handles);
  free(pool->ranges);
  pthread_cond_destroy(&pool->idle);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->lock);
  pthread_mutex_destroy(&pool->turn);
  free(pool);
}
