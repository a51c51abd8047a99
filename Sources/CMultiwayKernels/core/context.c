#include "context.h"
#include <stdlib.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#if defined(__x86_64__)
/// AVX-VNNI, which not every compiler's __builtin_cpu_supports knows.
static bool has_avx_vnni(void) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#elif defined(__aarch64__)
// Bits that the Linux kernel reports for a process (arch/arm64/include/uapi/asm/hwcap.h).
static bool has_simd(void) { return getauxval(AT_HWCAP) >> 1 & 1; }
static bool has_dotprod(void) { return getauxval(AT_HWCAP) >> 20 & 1; }
static bool has_i8mm(void) { return getauxval(AT_HWCAP2) >> 13 & 1; }
#endif

bool mwk_cpu_supports(mwk_isa isa) {
  switch (isa) {
  case mwk_isa_scalar: return true;
#if defined(__x86_64__)
  case mwk_isa_avx2:
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  case mwk_isa_avx_vnni: return mwk_cpu_supports(mwk_isa_avx2) && has_avx_vnni();
  case mwk_isa_avx512:
    return mwk_cpu_supports(mwk_isa_avx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
#elif defined(__aarch64__)
  case mwk_isa_neon: return has_simd();
  case mwk_isa_neon_dotprod: return has_simd() && has_dotprod();
  case mwk_isa_neon_i8mm: return has_simd() && has_i8mm();
#endif
  default: return false;
  }
}

mwk_status mwk_context_create(mwk_isa isa, size_t threads, mwk_context **result) {
  *result = NULL;
  if (!mwk_cpu_supports(isa) || threads == 0) return mwk_unsupported;
  mwk_context *context = calloc(1, sizeof *context);
  if (!context) return mwk_out_of_memory;
  context->threads = threads;
  context->elementwise = mwk_elementwise_for(isa);
  context->rows = mwk_rows_for(isa);
  context->convert = mwk_convert_for(isa);
  context->weights = mwk_weights_for(isa);
  context->gemm_f32 = mwk_gemm_f32_for(isa);
  context->gemm_i8 = mwk_gemm_i8_for(isa);
  context->gemm_blocks = mwk_gemm_blocks_for(isa);
  context->gemm_bf16 = mwk_gemm_bf16_for(isa);
  bool complete = context->elementwise && context->rows && context->convert && context->weights && context->gemm_f32 &&
                  context->gemm_i8 && context->gemm_blocks;
  mwk_status status = complete ? mwk_pool_create(threads, &context->pool) : mwk_unsupported;
  if (status != mwk_ok) {
    free(context);
    return status;
  }
  *result = context;
  return mwk_ok;
}

void mwk_context_destroy(mwk_context *context) {
  if (!context) return;
  mwk_pool_destroy(context->pool);
  free(context);
}

mwk_status mwk_parallel_for(const mwk_context *context, size_t count, size_t scratch_bytes, mwk_task fn,
                            void *argument) {
  return mwk_pool_run(context->pool, count, scratch_bytes, fn, argument);
}
