#include "CMultiwayKernels.h"
int mwk_version(void) { return 1; }
