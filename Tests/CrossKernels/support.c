#include "support.h"
#include <sys/mman.h>
#include <unistd.h>

size_t failures;

void report(const char *file, int line, const char *what) {
  fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
  failures++;
}

numbers seeded(uint64_t seed) { return (numbers){seed * 0x9e3779b97f4a7c15u + 1}; }

uint64_t next(numbers *n) {
  uint64_t z = n->state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

typedef struct { char *address; size_t bytes; } mapping;
static mapping mappings[256];
static size_t mapping_count;

void *guarded(size_t count) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), usable = mwk_round_up(count, page);
  if (mapping_count == sizeof mappings / sizeof *mappings) abort();
  char *address = mmap(NULL, usable + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) abort();
  if (!getenv("MULTIWAY_UNGUARDED") && mprotect(address + usable, page, PROT_NONE) != 0) abort();
  mappings[mapping_count++] = (mapping){address, usable + page};
  return address + usable - count;
}

void release_guarded(void) {
  while (mapping_count > 0) {
    mapping m = mappings[--mapping_count];
    munmap(m.address, m.bytes);
  }
}

float *floats(numbers *n, size_t count, float scale) {
  float *p = guarded(count * sizeof *p);
  for (size_t i = 0; i < count; i++) p[i] = ((float)(next(n) >> 40) / 8388608.0f - 1.0f) * scale;
  return p;
}

float *hard_floats(numbers *n, size_t count, float scale) {
  static const uint32_t hard[] = {
      0x00000000, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0x00000001, 0x80800000, 0x7f7fffff,
      0xff7fffff, 0x42b1700a, 0xc2d00000, 0xc2cff5c3, 0x3f200000, 0xbf200000, 0x414c0000, 0x477ff000, 0x4f000000,
  };
  const size_t hard_count = sizeof hard / sizeof *hard;
  float *p = floats(n, count, scale);
  for (size_t i = 0; i < count; i++)
    if (next(n) % 3 == 0) p[i] = mwk_float_of_bits(hard[next(n) % hard_count]);
  return p;
}

void *bytes(numbers *n, size_t count) {
  uint8_t *p = guarded(count);
  for (size_t i = 0; i < count; i++) p[i] = (uint8_t)(next(n) >> 33);
  return p;
}

float *room(size_t count) {
  float *p = guarded(count * sizeof *p);
  for (size_t i = 0; i < count; i++) p[i] = 7.0f;
  return p;
}

digest empty_digest(void) { return (digest){0xcbf29ce484222325u}; }

void add_bytes(digest *d, size_t count, const void *p) {
  const uint8_t *b = p;
  for (size_t i = 0; i < count; i++) d->value = (d->value ^ b[i]) * 0x100000001b3u;
}

void add_word(digest *d, uint64_t word) {
  for (int shift = 0; shift < 64; shift += 8) d->value = (d->value ^ (word >> shift & 255)) * 0x100000001b3u;
}

void add_floats(digest *d, size_t count, const float *p) {
  for (size_t i = 0; i < count; i++) add_word(d, p[i] != p[i] ? 0x7fc00000u : mwk_bits_of_float(p[i]));
}
