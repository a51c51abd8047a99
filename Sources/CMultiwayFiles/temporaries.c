#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "CMultiwayFiles.h"

// A name belongs to the writer while it is `writing`, to anybody who reads it while it is `noted`, and to the handler for ever
// once it is `taken`. Entries are used again and never freed: a handler may be looking at them.
enum { is_free, is_writing, is_noted, is_taken };

struct mwf_temporary {
  mwf_temporary *next;
  _Atomic int state;
  char path[PATH_MAX];
};

static _Atomic(mwf_temporary *) temporaries;

static mwf_temporary *free_entry(void) {
  for (mwf_temporary *entry = atomic_load(&temporaries); entry; entry = entry->next) {
    int expected = is_free;
    if (atomic_compare_exchange_strong(&entry->state, &expected, is_writing)) return entry;
  }
  mwf_temporary *entry = calloc(1, sizeof *entry);
  if (!entry) return NULL;
  atomic_store(&entry->state, is_writing);
  entry->next = atomic_load(&temporaries);
  while (!atomic_compare_exchange_weak(&temporaries, &entry->next, entry)) continue;
  return entry;
}

mwf_temporary *mwf_temporary_register(const char *path) {
  size_t length = strlen(path);
  if (length >= PATH_MAX) return NULL;
  mwf_temporary *entry = free_entry();
  if (!entry) return NULL;
  memcpy(entry->path, path, length + 1);
  atomic_store(&entry->state, is_noted);
  return entry;
}

void mwf_temporary_release(mwf_temporary *entry) {
  int expected = is_noted;
  if (entry) atomic_compare_exchange_strong(&entry->state, &expected, is_free);
}

// How many writers hold interrupts off, and above these bits the number of the signal that waits for them; `is_ending` once a handler
// removes files to end the process. One word, so that whoever lets go last cannot miss a signal that came just before.
static _Atomic int holds;
enum { hold_bits = 16, is_ending = -1 };

void mwf_interrupts_hold(void) {
  for (int state = atomic_load(&holds);;) {
    if (state == is_ending) {
      // Another thread ends the process; nothing may be begun that should be brought to its end.
      pause();
      state = atomic_load(&holds);
    } else if (atomic_compare_exchange_weak(&holds, &state, state + 1)) {
      return;
    }
  }
}

// Raises a signal before anything else happens, if this thread takes it; otherwise some thread does, soon.
static void raise_now(int number) {
  sigset_t blocked;
  if (pthread_sigmask(SIG_BLOCK, NULL, &blocked) == 0 && sigismember(&blocked, number) == 0) {
    raise(number);
  } else {
    kill(getpid(), number);
  }
}

void mwf_interrupts_release(void) {
  int state = atomic_load(&holds);
  int next;
  do {
    next = state - 1;
    if (next % (1 << hold_bits) == 0) next = 0;
  } while (!atomic_compare_exchange_weak(&holds, &state, next));
  // The last one out makes up for the signal that waited.
  if (next == 0 && state >> hold_bits != 0) raise_now(state >> hold_bits);
}

// True where the process may end now; otherwise the signal is noted for the last who lets go.
static bool may_end(int number) {
  int state = atomic_load(&holds);
  while (state != is_ending) {
    int next = state == 0 ? is_ending : state >> hold_bits != 0 ? state : state | number << hold_bits;
    if (atomic_compare_exchange_weak(&holds, &state, next)) return state == 0;
  }
  return true;
}

static void remove_and_end(int number) {
  if (!may_end(number)) return;
  for (mwf_temporary *entry = atomic_load(&temporaries); entry; entry = entry->next) {
    int expected = is_noted;
    if (atomic_compare_exchange_strong(&entry->state, &expected, is_taken)) unlink(entry->path);
  }
  // The default action takes place when the handler returns and the signal is no longer blocked.
  signal(number, SIG_DFL);
  raise(number);
}

void mwf_remove_temporaries_on_signals(void) {
  const int numbers[] = {SIGHUP, SIGINT, SIGTERM};
  struct sigaction action = {.sa_handler = remove_and_end};
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaddset(&action.sa_mask, numbers[i]);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    struct sigaction previous;
    if (sigaction(numbers[i], NULL, &previous) == 0 && previous.sa_handler == SIG_IGN) continue;
    sigaction(numbers[i], &action, NULL);
  }
}
