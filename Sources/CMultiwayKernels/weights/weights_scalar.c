#include "../simd/scalar.h"
#include "weights_body.h"
