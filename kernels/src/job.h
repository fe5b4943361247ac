// One call of acon_apply, prepared: what the driver (kernels.cpp) hands to the loops (loops.inc).
//
// The loops work on units. A unit writes sums of its own, so results do not depend on which thread
// takes it. There are two kinds of loops:
//
// rows      Every gate is one value along the innermost size (channels first). A unit is a stretch
//           of CHUNK elements of a row, and sums to one value a gate.
// columns   A gate varies along the innermost size (channels last). A unit is a segment of rows by
//           a strip of at most CHUNK columns, and sums over its rows.

#ifndef ACON_JOB_H
#define ACON_JOB_H

#include "kernels.h"

namespace {

constexpr int GATES = 4;
constexpr int64_t CHUNK = 1024;

// The memory that a loop reads and writes element by element. Loops copy it to locals: as a part of
// Job it would be read again after every store, because a store may change it.
struct Streams {
  const char *x, *g, *like_x;
  char *out, *dlike_x;
};

struct Gate {
  const char* values;   // float or double; for a gate like x, Streams has it
  int64_t step[3];      // how far the next value is along each size; 0 where the gate does not vary
  bool row_by_row;      // columns: the sums of each row are kept apart, because the gate varies by row
  double* sums;         // [A][B or segments][chunks, strips or D]; null: not needed
};

struct Job {
  int64_t a, b, d;      // the three sizes
  int64_t parts;        // chunks of a row, or strips of columns
  int64_t segments;     // columns: in how many segments the rows of one index `a` are summed
  int64_t segment;      // columns: rows of a segment
  int64_t group;        // columns: rows that are summed in registers
  Streams streams;
  Gate gate[GATES];
};

using Loop = void (*)(const Job& job, int64_t first, int64_t last);  // runs a range of units

}  // namespace

#endif
