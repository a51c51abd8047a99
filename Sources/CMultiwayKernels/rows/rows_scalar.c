#include "../simd/scalar.h"
#include "rows_body.h"
