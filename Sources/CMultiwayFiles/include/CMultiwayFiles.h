#pragma once
// What signal handlers of multiway need: tables that a handler may read at any moment. Handlers run between any two
// instructions, so everything here is atomics and system calls. No handler is installed until it is asked for.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Temporary files ----------------------------------------------------------------------------------------------------

/// A temporary file that an interrupted process must not leave behind.
typedef struct mwf_temporary mwf_temporary;

/// Notes a name before the file is created; NULL where it is too long or there is no memory.
mwf_temporary *mwf_temporary_register(const char *path);
/// Forgets the name, when the file has its own name or is removed.
void mwf_temporary_release(mwf_temporary *temporary);

/// From now on SIGHUP, SIGINT and SIGTERM remove the noted files and then end the process as they would have without a handler.
/// A signal that the process was told to ignore stays ignored.
void mwf_remove_temporaries_on_signals(void);

/// From now on these signals wait, until `mwf_interrupts_release` was called as often as this. At most 65,535 callers at a time. Where a
/// signal is ending the process already, the call does not return.
void mwf_interrupts_hold(void);
/// The last call lets a signal that waited end the process.
void mwf_interrupts_release(void);

/// Lets the kernel begin to write a file's changed pages to the disk, and waits for none of them.
void mwf_start_flushing(int descriptor);

// Mapped sources -----------------------------------------------------------------------------------------------------

/// A mapped file whose bytes may vanish under the reader.
typedef struct mwf_mapping mwf_mapping;

/// What a file was when it was mapped.
typedef struct {
  uint64_t device, inode, size;
  int64_t modified_seconds, modified_nanoseconds;
} mwf_file;

/// Notes a mapping of `file` at `base`; NULL where there is no memory. The path is cut where it is too long to be kept.
mwf_mapping *mwf_mapping_register(const void *base, const mwf_file *file, const char *path);
/// Forgets the mapping; to be called before it is unmapped. That it lost bytes is remembered until the file is mapped anew.
void mwf_mapping_release(mwf_mapping *mapping);

/// From now on, reading what a mapped file no longer holds gives zero bytes and marks the file, where SIGBUS would end the process.
void mwf_survive_lost_pages(void);

/// The path of a mapping of that file that lost bytes, or whose file now has another size or time of change; NULL if there is none.
const char *mwf_changed_file(uint64_t device, uint64_t inode);
/// The path of the first mapping of the process that lost bytes; NULL if none did.
const char *mwf_first_lost_file(void);

/// From now on the C library gives blocks of 256 KiB and more back to the system when they are freed, where it would raise its threshold.
void mwf_return_freed_memory(void);
