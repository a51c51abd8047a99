#include "../simd/scalar.h"
#include "elementwise_body.h"
