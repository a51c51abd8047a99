// The AVX-VNNI tile in AVX-512's encoding of the same instruction, so that it runs on CPUs that have only that one.
#include "support.h"

#if defined(__x86_64__)
#define MWK_TARGET "avx2,fma,f16c,avx512vl,avx512vnni"
#define MWK_ISA_SUFFIX avx_vnni_evex
#include "../../Sources/CMultiwayKernels/gemm_i8/gemm_i8_avx_vnni.c"

const mwk_gemm_i8 *avx_vnni_evex(void) {
  return mwk_cpu_supports(mwk_isa_avx512) ? &mwk_gemm_i8_avx_vnni_evex : NULL;
}
#else
const mwk_gemm_i8 *avx_vnni_evex(void) { return NULL; }
#endif
