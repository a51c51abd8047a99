#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>

#include "CMultiwayFiles.h"

void mwf_start_flushing(int descriptor) {
  // A file system that cannot do it flushes with everything else.
  (void)sync_file_range(descriptor, 0, 0, SYNC_FILE_RANGE_WRITE);
}
