#include <malloc.h>

#include "CMultiwayFiles.h"

void mwf_return_freed_memory(void) { mallopt(M_MMAP_THRESHOLD, 256 << 10); }
