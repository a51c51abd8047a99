#include "../simd/scalar.h"
#include "convert_body.h"
