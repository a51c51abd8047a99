#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "CMultiwayFiles.h"

// A `remembered` entry is of a mapping that is gone and had lost bytes. Entries are used again and never freed: a handler may be
// looking at them.
enum { is_free, is_claimed, is_mapped, is_remembered };

struct mwf_mapping {
  mwf_mapping *next;
  _Atomic int state;
  _Atomic bool lost_bytes;
  uintptr_t base;
  size_t size;  // in whole pages
  mwf_file file;
  char path[PATH_MAX];
};

static _Atomic(mwf_mapping *) mappings;
static _Atomic(mwf_mapping *) first_lost;
static char first_lost_path[PATH_MAX];
static struct sigaction previous_action;
static uintptr_t page_size;

static bool is_of(const mwf_mapping *entry, uint64_t device, uint64_t inode) {
  return entry->file.device == device && entry->file.inode == inode;
}

static mwf_mapping *free_entry(void) {
  for (mwf_mapping *entry = atomic_load(&mappings); entry; entry = entry->next) {
    int expected = is_free;
    if (atomic_compare_exchange_strong(&entry->state, &expected, is_claimed)) return entry;
  }
  mwf_mapping *entry = calloc(1, sizeof *entry);
  if (!entry) return NULL;
  atomic_store(&entry->state, is_claimed);
  entry->next = atomic_load(&mappings);
  while (!atomic_compare_exchange_weak(&mappings, &entry->next, entry)) continue;
  return entry;
}

mwf_mapping *mwf_mapping_register(const void *base, const mwf_file *file, const char *path) {
  for (mwf_mapping *entry = atomic_load(&mappings); entry; entry = entry->next) {
    int expected = is_remembered;
    if (atomic_load(&entry->state) == is_remembered && is_of(entry, file->device, file->inode))
      atomic_compare_exchange_strong(&entry->state, &expected, is_free);
  }
  mwf_mapping *entry = free_entry();
  if (!entry) return NULL;
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  atomic_store(&entry->lost_bytes, false);
  entry->base = (uintptr_t)base;
  entry->size = (file->size + page - 1) / page * page;
  entry->file = *file;
  strncpy(entry->path, path, PATH_MAX - 1);
  entry->path[PATH_MAX - 1] = 0;
  atomic_store(&entry->state, is_mapped);
  return entry;
}

void mwf_mapping_release(mwf_mapping *entry) {
  if (entry) atomic_store(&entry->state, atomic_load(&entry->lost_bytes) ? is_remembered : is_free);
}

// Puts zero pages in the place of those that the file lost: from the one that was read to the end of the mapping.
static bool replace_lost_pages(uintptr_t address) {
  for (mwf_mapping *entry = atomic_load(&mappings); entry; entry = entry->next) {
    if (atomic_load(&entry->state) != is_mapped || address - entry->base >= entry->size) continue;
    uintptr_t first = address & ~(page_size - 1);
    void *zeros = mmap((void *)first, entry->base + entry->size - first, PROT_READ,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (zeros == MAP_FAILED) return false;
    atomic_store(&entry->lost_bytes, true);
    mwf_mapping *none = NULL;
    if (atomic_compare_exchange_strong(&first_lost, &none, entry)) memcpy(first_lost_path, entry->path, PATH_MAX);
    return true;
  }
  return false;
}

static void on_bus_error(int number, siginfo_t *info, void *context) {
  (void)context;
  int saved = errno;
  bool is_done = info->si_code == BUS_ADRERR && replace_lost_pages((uintptr_t)info->si_addr);
  if (!is_done) {
    // Not ours: whoever handled it before gets it, when the instruction is tried again or the signal is sent again.
    sigaction(number, &previous_action, NULL);
    if (info->si_code <= 0) raise(number);
  }
  errno = saved;
}

void mwf_survive_lost_pages(void) {
  static atomic_flag is_installed = ATOMIC_FLAG_INIT;
  if (atomic_flag_test_and_set(&is_installed)) return;
  page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
  struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &previous_action);
}

static bool is_changed(const mwf_mapping *entry) {
  struct stat now;
  // Whoever replaced the file by another one left the mapped one as it was.
  if (stat(entry->path, &now) != 0 || !is_of(entry, now.st_dev, now.st_ino)) return false;
  return (uint64_t)now.st_size != entry->file.size || now.st_mtim.tv_sec != entry->file.modified_seconds ||
         now.st_mtim.tv_nsec != entry->file.modified_nanoseconds;
}

const char *mwf_changed_file(uint64_t device, uint64_t inode) {
  for (mwf_mapping *entry = atomic_load(&mappings); entry; entry = entry->next) {
    int state = atomic_load(&entry->state);
    if ((state != is_mapped && state != is_remembered) || !is_of(entry, device, inode)) continue;
    if (atomic_load(&entry->lost_bytes) || (state == is_mapped && is_changed(entry))) return entry->path;
  }
  return NULL;
}

const char *mwf_first_lost_file(void) { return atomic_load(&first_lost) ? first_lost_path : NULL; }
