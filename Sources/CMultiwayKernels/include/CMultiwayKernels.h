#pragma once
#include <stddef.h>
#include <stdint.h>
int mwk_version(void);
