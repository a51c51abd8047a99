#pragma once
// The compute kernels of multiway. Row-major, sizes in elements unless named bytes. The same bits come out on every
// instruction set and for every number of threads; Docs/Numerics.md defines them.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

/// Instruction sets, slowest first where a CPU has several.
typedef enum : uint32_t {
  mwk_isa_scalar = 0,
  mwk_isa_avx2 = 1,
  mwk_isa_avx_vnni = 2,
  mwk_isa_avx512 = 3,
  mwk_isa_neon = 4,
  mwk_isa_neon_dotprod = 5,
  mwk_isa_neon_i8mm = 6,
} mwk_isa;
#define MWK_ISA_COUNT 7

/// Whether this CPU, and the operating system, can run the kernels of an instruction set.
bool mwk_cpu_supports(mwk_isa isa);

typedef enum : uint32_t { mwk_ok = 0, mwk_out_of_memory = 1, mwk_unsupported = 2, mwk_no_thread = 3 } mwk_status;
typedef enum : uint32_t { mwk_activation_none = 0, mwk_activation_gelu = 1 } mwk_activation;
typedef enum : uint32_t { mwk_weight_f32 = 0, mwk_weight_f16 = 1, mwk_weight_bf16 = 2 } mwk_weight_type;
/// ggml's types of 32 weights in a block: a scale, with q4_1 an offset (halves), then bytes, or four bits of weights 0…15 and 16…31.
typedef enum : uint32_t { mwk_block_q8_0 = 0, mwk_block_q4_0 = 1, mwk_block_q4_1 = 2 } mwk_block_type;
typedef enum : uint32_t { mwk_attention_full = 0, mwk_attention_caption = 1 } mwk_attention_mode;
typedef enum : uint32_t { mwk_attention_f32 = 0, mwk_attention_i8 = 1 } mwk_attention_arithmetic;

/// A chosen instruction set and a pool of threads. Any thread may use it; calls take turns.
typedef struct mwk_context mwk_context;
mwk_status mwk_context_create(mwk_isa isa, size_t threads, mwk_context **context);
void mwk_context_destroy(mwk_context *context);

/// Runs fn(argument, task, scratch) for every task below count, each on some thread of the pool. `scratch` is that
/// thread's own, 64-byte aligned, at least scratch_bytes long. Not to be nested.
typedef void (*mwk_task)(void *argument, size_t task, void *scratch);
mwk_status mwk_parallel_for(const mwk_context *context, size_t count, size_t scratch_bytes, mwk_task fn, void *argument);

// Rows ---------------------------------------------------------------------------------------------------------------

/// y = (x − mean) · 1/√(variance + eps) [· weight] [+ bias], row by row; y may be x.
mwk_status mwk_layer_norm_f32(const mwk_context *context, size_t rows, size_t width, const float *x,
                              const float *weight, const float *bias, float eps, float *y);
/// Asymmetric u8 quantization of each row: x ≈ scale · (q − zero). Rows of q are round_up(width, 4) bytes apart. A row
/// is cut into `groups` runs of equal length (a multiple of 4 where there are several), each with its own scale[g][row]
/// and zero[g][row]. A group with a NaN or an infinity gets scale NaN, so that everything computed from it is NaN.
mwk_status mwk_quantize_rows(const mwk_context *context, size_t rows, size_t width, size_t groups, const float *x,
                             uint8_t *q, float *scale, int32_t *zero);
/// The two functions above, one after the other, without the row in between going to memory.
mwk_status mwk_layer_norm_quantize(const mwk_context *context, size_t rows, size_t width, size_t groups,
                                   const float *x, const float *weight, const float *bias, float eps, uint8_t *q,
                                   float *scale, int32_t *zero);
/// y = x / max(√Σx², 1e-12), row by row; y may be x.
mwk_status mwk_l2_normalize_f32(const mwk_context *context, size_t rows, size_t width, const float *x, float *y);

// Products -----------------------------------------------------------------------------------------------------------

typedef struct {
  size_t rows, inputs, outputs, groups;
  const uint8_t *q;             // [rows][round_up(inputs, 4)]
  const float *scale;           // [groups][rows]
  const int32_t *zero;          // [groups][rows]
  const int8_t *panels;         // [⌈outputs/64⌉][⌈inputs/4⌉][64][4], zero padded
  const float *weight_scale;    // [groups][outputs]
  const int32_t *weight_sum;    // [groups][outputs]
  const float *bias;            // [outputs] or NULL
  const float *residual;        // rows as y's, or NULL; may be y
  mwk_activation activation;
  float *y;                     // [rows], y_stride apart
  size_t y_stride;
} mwk_linear_i8_job;

/// y = activation(Σ_groups float(Σ q·w − zero·sum) · (scale · weight_scale) + bias) + residual; the groups' terms are
/// added in order, the first one together with the bias. inputs / groups ≤ 65536, and a multiple of 4 for several groups.
mwk_status mwk_linear_i8(const mwk_context *context, const mwk_linear_i8_job *job);

typedef struct {
  size_t rows, inputs, outputs;
  const float *x;               // [rows], x_stride apart
  size_t x_stride;
  const void *weight;           // [outputs][inputs] at any address
  mwk_weight_type weight_type;
  const float *bias;            // [outputs] or NULL
  const float *residual;        // rows as y's, or NULL; may be y
  mwk_activation activation;
  float *y;                     // [rows], y_stride apart
  size_t y_stride;
} mwk_linear_f32_job;

/// y = activation(Σ x·w + bias) + residual, each Σ one chain of fma in the order of k.
mwk_status mwk_linear_f32(const mwk_context *context, const mwk_linear_f32_job *job);

/// Weights in a block.
#define MWK_BLOCK ((size_t)32)
/// Bytes of a block.
size_t mwk_block_bytes(mwk_block_type type);

typedef struct {
  size_t rows, inputs, outputs; // inputs a multiple of 32
  const float *x;               // [rows], x_stride apart
  size_t x_stride;
  const void *blocks;           // [outputs][inputs / 32] at any address
  mwk_block_type type;
  const float *bias;            // [outputs] or NULL
  const float *residual;        // rows as y's, or NULL; may be y
  mwk_activation activation;
  float *y;                     // [rows], y_stride apart
  size_t y_stride;
} mwk_linear_blocks_job;

/// y = activation(Σ x·w + bias) + residual. Each Σ is 16 chains of fma in the order of k, one for each k mod 16, then their tree.
mwk_status mwk_linear_blocks(const mwk_context *context, const mwk_linear_blocks_job *job);

/// Encodes 32 · count numbers as blocks; `broken` receives how many blocks hold a number which is not finite, or one too large for the
/// type: what was written for them means nothing.
mwk_status mwk_encode_blocks(const mwk_context *context, mwk_block_type type, size_t count, const float *x, void *blocks,
                             size_t *broken);

/// Whether this CPU has a bf16 multiplier that kernels exist for, and whether an instruction set's kernels use it. Its sums are not
/// the same on every CPU: nothing uses it unless it is asked for. Without it the functions below return mwk_unsupported.
bool mwk_cpu_has_bf16(void);
bool mwk_supports_bf16(mwk_isa isa);

/// x rounded to bf16, half to even; rows of y are round_up(width, 2) values apart, the odd one out being 0.
mwk_status mwk_round_rows_bf16(const mwk_context *context, size_t rows, size_t width, const float *x, uint16_t *y);
/// mwk_layer_norm_f32 and mwk_round_rows_bf16, one after the other, without the row in between going to memory.
mwk_status mwk_layer_norm_round_bf16(const mwk_context *context, size_t rows, size_t width, const float *x,
                                     const float *weight, const float *bias, float eps, uint16_t *y);
/// Weights [outputs][inputs] of `type`, at any address, rounded to bf16 as mwk_linear_bf16 reads them:
/// [⌈outputs/64⌉][⌈inputs/2⌉][64][2], zero padded. `overflows` receives how many finite ones became infinite.
mwk_status mwk_pack_bf16_panels(const mwk_context *context, size_t outputs, size_t inputs, mwk_weight_type type,
                                const void *weight, uint16_t *panels, size_t *overflows);

typedef struct {
  size_t rows, inputs, outputs;
  const uint16_t *x;            // [rows][round_up(inputs, 2)]
  const uint16_t *panels;       // [⌈outputs/64⌉][⌈inputs/2⌉][64][2], zero padded
  const float *bias;            // [outputs] or NULL
  const float *residual;        // rows as y's, or NULL; may be y
  mwk_activation activation;
  float *y;                     // [rows], y_stride apart
  size_t y_stride;
} mwk_linear_bf16_job;

/// y = activation(Σ x·w + bias) + residual, each Σ as the CPU's bf16 multiplier adds pairs, in the order of k.
mwk_status mwk_linear_bf16(const mwk_context *context, const mwk_linear_bf16_job *job);

#define MWK_ATTENTION_SEGMENTS 4

typedef struct {
  size_t images, height, width, channels, outputs;
  size_t kernel;                // odd; rows and columns
  const float *x;               // [images][height][width][channels]
  const void *weight;           // [outputs][kernel][kernel][channels] at any address
  mwk_weight_type weight_type;
  const float *bias;            // [outputs] or NULL
  mwk_activation activation;
  float *y;                     // [images][height][width][outputs]
} mwk_convolution_f32_job;

/// y = activation(Σ x·w + bias) over the kernel around each position, each Σ one chain of fma in the order of the weights.
/// Positions outside the image take no part.
mwk_status mwk_convolution_f32(const mwk_context *context, const mwk_convolution_f32_job *job);

typedef struct {
  const float *q;               // [batch][tokens], rows `stride` apart; NULL for a memory: keys and values alone
  const float *k, *v;           // [batch / share][tokens], rows `stride` apart
  float *out;                   // [batch][tokens], rows `out_stride` apart
  size_t tokens, stride, out_stride;
  size_t share;                 // so many examples in a row have the same keys and values; 1 where there are queries
} mwk_attention_segment;

/// Where keys and values of the first segment, a memory, stay as the products read them, from one call to the next.
typedef struct {
  void *bytes;                  // mwk_attention_store_bytes, 64-byte aligned; NULL: they are packed in every call
  size_t keys;                  // room for so many keys, those of all segments together
  bool is_filled;               // by a call with the same memory, sizes of it and room; the other segments may differ
} mwk_attention_store;

typedef struct {
  size_t batch, heads, head_size;
  float scale;
  mwk_attention_segment segments[MWK_ATTENTION_SEGMENTS];
  size_t segment_count;
  const uint8_t *key_padding;   // [batch][tokens of the last segment], nonzero = excluded, or NULL
  mwk_attention_mode mode;
  mwk_attention_arithmetic arithmetic;  // of the two products; scores and softmax are fp32
  const float *bias;            // [heads][bias_rows], added to the scaled scores, or NULL
  size_t bias_rows;
  const int16_t *bias_index;    // [queries][keys], rows bias_stride apart: the row of the bias, which the caller has checked
  size_t bias_stride;
  mwk_attention_store store;    // its bytes are NULL unless the first segment is a memory and no other is shared by more
} mwk_attention_job;

/// The size of a store for a memory of so many examples, and `keys` keys in all.
size_t mwk_attention_store_bytes(mwk_attention_arithmetic arithmetic, size_t examples, size_t heads, size_t head_size,
                                 size_t keys);

/// Joint multi-head attention over the segments: every query may attend to the keys of all. In caption mode the rows of the
/// last segment attend to the segments before it and to the last one's keys up to their own, the rows of the others to
/// all segments but the last. A row without any key to attend to becomes zeros. Memories come before all other segments.
mwk_status mwk_attention(const mwk_context *context, const mwk_attention_job *job);

// Elements (y may be an input) ---------------------------------------------------------------------------------------

mwk_status mwk_gelu_f32(const mwk_context *context, size_t count, const float *x, float *y);
mwk_status mwk_tanh_f32(const mwk_context *context, size_t count, const float *x, float *y);
/// 0 where x < 0.
mwk_status mwk_relu_f32(const mwk_context *context, size_t count, const float *x, float *y);
mwk_status mwk_exp_f32(const mwk_context *context, size_t count, const float *x, float *y);
/// The largest element of each row, NaN left out, and Σ exp(x − largest): 1024 at a time as a row sum in fp32, these in order in double.
mwk_status mwk_exp_sums(const mwk_context *context, size_t rows, size_t width, const float *x, float *largest, double *sum);
mwk_status mwk_add_f32(const mwk_context *context, size_t count, const float *a, const float *b, float *y);
mwk_status mwk_scale_f32(const mwk_context *context, size_t count, float factor, const float *x, float *y);
/// Row i of y = row i of x + (or ·) row i mod table_rows of the table.
mwk_status mwk_add_table_f32(const mwk_context *context, size_t rows, size_t width, const float *x, size_t table_rows,
                             const float *table, float *y);
mwk_status mwk_multiply_table_f32(const mwk_context *context, size_t rows, size_t width, const float *x,
                                  size_t table_rows, const float *table, float *y);

// Layout -------------------------------------------------------------------------------------------------------------

/// Mean over tokens first ..< first + count of [batch][tokens][width], in token order; y is [batch][width].
mwk_status mwk_mean_rows_f32(const mwk_context *context, size_t batch, size_t tokens, size_t width, size_t first,
                             size_t count, const float *x, float *y);
/// [images][channels][height][width] → [images · (height/patch) · (width/patch)][channels · patch · patch].
mwk_status mwk_patchify_f32(const mwk_context *context, size_t images, size_t channels, size_t height, size_t width,
                            size_t patch, const float *x, float *y);
/// Rows of `type` at any address, chosen by ids (each below the table's rows: the caller checks), as fp32.
mwk_status mwk_gather_rows_f32(const mwk_context *context, size_t count, size_t width, mwk_weight_type type,
                               const void *table, const int64_t *ids, float *y);

// Feature maps [images][height][width][channels] ----------------------------------------------------------------------

/// The largest of each 2×2 block, NaN where one of the four is; y is [images][height / 2][width / 2][channels].
mwk_status mwk_max_pool_f32(const mwk_context *context, size_t images, size_t height, size_t width, size_t channels,
                            const float *x, float *y);
/// The means over bins × bins blocks that cover the map, as PyTorch's adaptive pool cuts them; y is
/// [images][bins][bins][channels]. Positions are added row by row.
mwk_status mwk_average_pool_f32(const mwk_context *context, size_t images, size_t height, size_t width,
                                size_t channels, size_t bins, const float *x, float *y);
/// Bilinear interpolation between the centres of positions; y is [images][to_height][to_width][channels].
mwk_status mwk_resize_bilinear_f32(const mwk_context *context, size_t images, size_t height, size_t width,
                                   size_t channels, size_t to_height, size_t to_width, const float *x, float *y);
/// y is [images][channels][height][width].
mwk_status mwk_to_image_f32(const mwk_context *context, size_t images, size_t height, size_t width, size_t channels,
                            const float *x, float *y);

// Conversions. Round to nearest even; the functions that narrow report how many finite values became infinite. --------

mwk_status mwk_f16_to_f32(const mwk_context *context, size_t count, const void *x, float *y);
mwk_status mwk_bf16_to_f32(const mwk_context *context, size_t count, const void *x, float *y);
mwk_status mwk_f32_to_f16(const mwk_context *context, size_t count, const float *x, void *y, size_t *overflows);
mwk_status mwk_f32_to_bf16(const mwk_context *context, size_t count, const float *x, void *y, size_t *overflows);

/// Symmetric int8 per output and group of inputs, written as mwk_linear_i8 reads it. Column k of the weights is multiplied with
/// column_scale[k] first, unless that is NULL. `broken` receives the number of rows that hold a value
/// which is not finite; what was written for them means nothing.
mwk_status mwk_quantize_weight_panels(const mwk_context *context, size_t outputs, size_t inputs, size_t groups,
                                      const float *weight, const float *column_scale, int8_t *panels, float *scale, int32_t *sum,
                                      size_t *broken);

// Sums over weights in double precision, on the calling thread. Element j of a row is added to partial sum j mod 16; these are added as
// a tree (weights/weights_body.h), so the bits do not depend on the instruction set or on the rows that come together. ---

/// out[r] = start[r] + Σ matrix[r][i] · vector[i] in double precision, rounded once; start may be NULL for zeros.
void mwk_shifted_bias(const mwk_context *context, size_t rows, size_t inputs, const float *matrix, const float *vector,
                      const float *start, float *out);

/// square[r] = Σ matrix[r][i]² · squares[i], and mean[r] = Σ matrix[r][i] · shift[i], which is left alone where shift is NULL.
void mwk_row_moments(const mwk_context *context, size_t rows, size_t inputs, const float *matrix, const double *squares,
                     const float *shift, double *square, double *mean);

/// squares[i] = Σ matrix[r][i]², row by row.
void mwk_column_squares(const mwk_context *context, size_t rows, size_t inputs, const float *matrix, double *squares);

/// exact[t · rows + r] = Σ matrix[r][i] · tokens[t][i] in double precision.
void mwk_row_products(const mwk_context *context, size_t rows, size_t inputs, size_t tokens, const float *matrix,
                      const float *token, double *exact);

/// Quantizes tokens / factors as mwk_quantize_rows does, and takes the zero point off again: numbers of at most 255 in magnitude. The scale
/// of a token that holds a value which is not finite is NaN. `divided` and `bytes` hold a row, of a multiple of 4.
void mwk_quantize_tokens(const mwk_context *context, size_t tokens, size_t inputs, const float *token, const float *factors,
                         float *divided, uint8_t *bytes, int16_t *q, float *scale);

/// Quantizes the rows of matrix · diag(factors) to −127…127 as mwk_quantize_weight_panels does without groups, and gives
/// sums[t · rows + r] = Σ q[r][i] · token[t][i] for tokens of at most 255 in magnitude, and the scale of each row, its largest
/// magnitude / 127. Values that are not finite count as zero; sums wrap around. `quantized` holds a row.
void mwk_quantized_row_products(const mwk_context *context, size_t rows, size_t inputs, size_t tokens, const float *matrix,
                                const float *factors, const int16_t *token, int16_t *quantized, int32_t *sums, float *scale);

// Measurement --------------------------------------------------------------------------------------------------------

/// Runs the instruction set's multiply-add on registers only; returns how many operations (2 a multiply-add) that was,
/// 0 where no such loop exists. `sink` keeps the result alive.
double mwk_peak_i8(mwk_isa isa, size_t iterations, int32_t *sink);
double mwk_peak_f32(mwk_isa isa, size_t iterations, float *sink);
double mwk_peak_bf16(mwk_isa isa, size_t iterations, float *sink);
/// Reads `bytes` bytes, a multiple of 64 in 64-byte aligned memory, once on all threads; `sink` keeps their sum alive.
mwk_status mwk_read_memory(const mwk_context *context, size_t bytes, const void *memory, uint64_t *sink);

#if defined(__cplusplus)
}
#endif
