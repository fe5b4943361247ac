/* Gated activation functions on arrays: forward, and backward with reduced gradients.

   An array x of three sizes, A x B x D, is dense. A gate is a parameter beside x; it varies along
   some of the sizes. All layouts are cases of this: channels first is (N, C, H W), channels last
   (N, H W, C), one row (1, 1, all). */

#ifndef ACON_KERNELS_H
#define ACON_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum acon_function {
  ACON_ACON,             /* gates p1, p2, beta: x (p2 + (p1 - p2) sigmoid(beta (p1 - p2) x)) */
  ACON_SLOPES,           /* gates positive, negative: x positive where x > 0, else x negative */
  ACON_ATTENTION_SLOPES, /* gates alpha, beta: slopes 1 + sigmoid(beta) and clip(alpha, .01, .99) */
  ACON_BRANCHES,         /* gates identity, relu, hardswish, shift: the sum of RepAct's branches */
  ACON_TWO_LINES,        /* gates a1, a2, b1, b2: max(a1 x + b1, a2 x + b2) */
  ACON_MAXIMUM,          /* gate other: max(x, other) */
};

enum acon_type { ACON_FLOAT32, ACON_FLOAT64, ACON_BFLOAT16, ACON_FLOAT16 };

/* What one signature needs. Bit i of covers[k]: gate k varies along sizes[i], and is dense over the
   sizes that it covers, in their order. Bit 3 (value 8): the gate has the size and the type of x.
   Other gates and their gradients are float64 beside float64, else float32. */
typedef struct {
  int32_t function;
  int32_t type;
  int64_t sizes[3];
  int32_t covers[4];
} acon_plan;

/* Run work(data) on `threads` threads at once, as GOMP_parallel of libgomp and libiomp5 does. */
typedef void (*acon_parallel)(void (*work)(void*), void* data, unsigned threads, unsigned flags);

/* Compute y, or gradients.

   g null: out = y. Otherwise g is the gradient of y, in the type and order of x, and out = dx;
   dgates[k] = the gradient of gate k, summed over what the gate does not cover, in the gate's shape
   and type. A null out or dgates[k] is not computed. Unused gates are null. `parallel` may be null:
   then one thread. Results do not depend on `threads`.

   Returns 0; 1 without memory; 2 for a plan that is refused. A null plan returns the bytes of a
   vector register in use: 16, 32 or 64. The environment variable ACON_KERNELS_WIDTH=16 | 32 | 64,
   read once, caps it. */
__attribute__((visibility("default"))) int acon_apply(const acon_plan* plan, const void* x, const void* g,
                                                      const void* const gates[4], void* out, void* const dgates[4],
                                                      unsigned threads, acon_parallel parallel);

#ifdef __cplusplus
}
#endif

#endif
