#include <xxhash.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>
#endif

/// `XXH3_128bits_update` with the widest vectors of the CPU; the library's own stays with SSE2 on x86-64. The digest is the same.
static inline XXH_errorcode mwx_xxh3_128_update(XXH3_state_t *state, const void *bytes, size_t count) {
#if defined(__x86_64__)
  return XXH3_128bits_update_dispatch(state, bytes, count);
#else
  return XXH3_128bits_update(state, bytes, count);
#endif
}
