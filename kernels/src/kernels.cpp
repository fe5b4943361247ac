// A plain implementation of kernels.h, element by element in double precision.
#include "kernels.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace {

double load(const void* p, int type, int64_t i) {
  if (type == ACON_FLOAT64) return static_cast<const double*>(p)[i];
  if (type == ACON_FLOAT32) return static_cast<const float*>(p)[i];
  if (type == ACON_FLOAT16) return static_cast<const _Float16*>(p)[i];
  uint32_t bits = uint32_t(static_cast<const uint16_t*>(p)[i]) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

void store(void* p, int type, int64_t i, double value) {
  if (type == ACON_FLOAT64) { static_cast<double*>(p)[i] = value; return; }
  if (type == ACON_FLOAT32) { static_cast<float*>(p)[i] = float(value); return; }
  if (type == ACON_FLOAT16) { static_cast<_Float16*>(p)[i] = _Float16(float(value)); return; }
  float narrow = float(value);
  uint32_t bits;
  std::memcpy(&bits, &narrow, 4);
  static_cast<uint16_t*>(p)[i] = narrow != narrow ? uint16_t(bits >> 16 | 64) : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

double sigmoid(double z) { double e = std::exp(-std::fabs(z)); return z < 0 ? e / (1 + e) : 1 / (1 + e); }

}  // namespace

extern "C" int acon_apply(const acon_plan* plan, const void* x, const void* g, const void* const gates[4], void* out,
                          void* const dgates[4], unsigned, acon_parallel) {
  if (!plan) return 16;
  const int counts[] = {3, 2, 2, 4, 4, 1};
  const int count = counts[plan->function], type = plan->type, wide = type == ACON_FLOAT64 ? ACON_FLOAT64 : ACON_FLOAT32;
  const int64_t* n = plan->sizes;
  std::vector<double> sums[4];
  int64_t strides[4][3];
  for (int k = 0; k < count; ++k) {
    int64_t size = 1;
    for (int i = 2; i >= 0; --i) {
      bool covered = plan->covers[k] & 8 || plan->covers[k] >> i & 1;
      strides[k][i] = covered ? size : 0;
      if (covered) size *= n[i];
    }
    if (g && dgates[k]) sums[k].assign(size, 0.0);
  }
  for (int64_t a = 0, at = 0; a < n[0]; ++a)
    for (int64_t b = 0; b < n[1]; ++b)
      for (int64_t c = 0; c < n[2]; ++c, ++at) {
        double v = load(x, type, at), p[4] = {0, 0, 0, 0}, d[4] = {0, 0, 0, 0}, y = 0, dx = 0, u = g ? load(g, type, at) : 0;
        int64_t place[4];
        for (int k = 0; k < count; ++k) {
          place[k] = a * strides[k][0] + b * strides[k][1] + c * strides[k][2];
          if (gates[k]) p[k] = load(gates[k], plan->covers[k] & 8 ? type : wide, place[k]);
        }
        if (plan->function == ACON_ACON) {
          double slope = p[0] - p[1], z = p[2] * slope * v, s = sigmoid(z), t = sigmoid(-z), st = s * t;
          double bend = (z > 3e38 ? 3e38 : z < -3e38 ? -3e38 : z) * st, to1 = s + bend, to2 = t - bend;
          y = v * (p[1] + slope * s);
          dx = u * (p[0] * to1 + p[1] * to2);
          d[0] = u * v * to1; d[1] = u * v * to2; d[2] = u * v * (slope * (v * (slope * st)));
        } else if (plan->function == ACON_SLOPES || plan->function == ACON_ATTENTION_SLOPES) {
          bool attention = plan->function == ACON_ATTENTION_SLOPES;
          double up = attention ? 1 + sigmoid(p[1]) : p[0], down = attention ? (p[0] < .01f ? .01f : p[0] > .99f ? .99f : p[0]) : p[1];
          y = (v > 0 ? v : v <= 0 ? 0 : v) * up + (v > 0 ? 0 : v) * down;
          dx = u * (v > 0 ? up : down);
          double above = v > 0 ? u * v : 0, below = v > 0 ? 0 : u * v;
          d[0] = attention ? below * (p[0] >= .01f && p[0] <= .99f) : above;
          d[1] = attention ? above * sigmoid(p[1]) * sigmoid(-p[1]) : below;
        } else if (plan->function == ACON_BRANCHES) {
          double hard = v <= -3 ? 0 : v >= 3 ? 1 : (v + 3) / 6, positive = v > 0 ? v : v <= 0 ? 0 : v;
          y = v * p[0] + positive * p[1] + v * hard * p[2] + p[3];
          dx = u * (p[0] + (v > 0) * p[1] + (v <= -3 ? 0 : v >= 3 ? 1 : (v + 1.5) / 3) * p[2]);
          d[0] = u * v; d[1] = v > 0 ? u * v : 0; d[2] = u * v * hard; d[3] = u;
        } else if (plan->function == ACON_TWO_LINES) {
          double one = v * p[0] + p[2], two = v * p[1] + p[3], tie = one > two ? 1 : one == two ? .5 : one < two ? 0 : NAN;
          y = one > two || one != one ? one : two;
          double first = u * tie, second = u - first;
          dx = first * p[0] + second * p[1];
          d[0] = first * v; d[1] = second * v; d[2] = first; d[3] = second;
        } else {
          y = v > p[0] || v != v ? v : p[0];
          double tie = v > p[0] ? 1 : v == p[0] ? .5 : v < p[0] ? 0 : NAN;
          dx = u * tie; d[0] = u - dx;
        }
        if (out) store(out, type, at, g ? dx : y);
        for (int k = 0; k < count; ++k)
          if (!sums[k].empty()) sums[k][place[k]] += d[k];
      }
  for (int k = 0; k < count; ++k)
    for (size_t i = 0; i < sums[k].size(); ++i) store(dgates[k], plan->covers[k] & 8 ? type : wide, i, sums[k][i]);
  return 0;
}
