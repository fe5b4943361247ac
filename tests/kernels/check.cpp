// A check of the library without Python, for processors that are emulated: ACON and its gradients
// in both kinds of layouts against the formula in long double.

#include <math.h>
#include <stdio.h>

#include "kernels.h"

namespace {

constexpr int A = 3, B = 7, D = 49, ALL = A * B * D;
using Wide = long double;

Wide sigmoid(Wide z) { return 1 / (1 + expl(-z)); }

struct Exact {
  Wide y, dx, d[3];
};

Exact acon(Wide x, Wide g, Wide p1, Wide p2, Wide beta) {
  const Wide slope = p1 - p2, z = beta * slope * x, s = sigmoid(z), t = sigmoid(-z), bend = z * s * t;
  return {x * (p2 + slope * s), g * (p1 * (s + bend) + p2 * (t - bend)),
          {g * x * (s + bend), g * x * (t - bend), g * x * slope * x * slope * s * t}};
}

// The largest error of one call, in units of the last place of 1 and relative to the largest terms.
template <class R>
double worst(int type, int covered, Wide unit) {
  const acon_plan plan = {ACON_ACON, type, {A, B, D}, {1 << covered, 1 << covered, 1 << covered}};
  const int sizes[] = {A, B, D}, count = sizes[covered];
  R x[ALL], g[ALL], y[ALL], dx[ALL], gates[3][D], dgates[3][D];
  for (int i = 0; i < ALL; ++i) x[i] = R(8 * sin(1.7 * i)), g[i] = R(cos(0.9 * i));
  for (int k = 0; k < 3; ++k)
    for (int i = 0; i < count; ++i) gates[k][i] = R(1.3 * sin(2.1 * i + k));
  const void* const in[4] = {gates[0], gates[1], gates[2], nullptr};
  void* const out[4] = {dgates[0], dgates[1], dgates[2], nullptr};
  if (acon_apply(&plan, x, nullptr, in, y, nullptr, 1, nullptr) || acon_apply(&plan, x, g, in, dx, out, 1, nullptr)) return INFINITY;
  Wide error = 0, sums[3][D] = {};
  for (int i = 0; i < ALL; ++i) {
    const int place[] = {i / (B * D), i / D % B, i % D}, at = place[covered];
    const Exact exact = acon(x[i], g[i], gates[0][at], gates[1][at], gates[2][at]);
    error = fmaxl(error, fmaxl(fabsl(y[i] - exact.y), fabsl(dx[i] - exact.dx)) / (8 * 2.6L));
    for (int k = 0; k < 3; ++k) sums[k][at] += exact.d[k];
  }
  for (int k = 0; k < 3; ++k)
    for (int i = 0; i < count; ++i) error = fmaxl(error, fabsl(dgates[k][i] - sums[k][i]) / (8 * 8 * ALL / count));
  return double(error / unit);
}

}  // namespace

int main() {
  const int width = acon_apply(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr);
  double most = 0;
  for (int covered = 0; covered < 3; ++covered) {
    const double single = worst<float>(ACON_FLOAT32, covered, 0x1p-24L), twice = worst<double>(ACON_FLOAT64, covered, 0x1p-53L);
    printf("gates along size %d: float32 %.2f units, float64 %.2f units\n", covered, single, twice);
    most = fmax(most, fmax(single, twice));
  }
  printf("vectors of %d bytes\n", width);
  return most < 2 && most > 0 ? 0 : 1;
}
