// acon_apply as a custom call of XLA, by the C interface of its foreign functions.
//
// Operands: x, the gates that are arrays, and for gradients g. Results: y, or dx and the gradients
// of those gates.
#include <pthread.h>
#include <stdlib.h>

#include "kernels.h"
#include "xla/ffi/api/c_api.h"

namespace {

// What the attribute `plan` holds, as int64 numbers.
struct Call {
  acon_plan plan;
  int64_t arrays;        // bit k: gate k is an operand; else it is a constant
  double constants[4];   // each in the type of a gate, from its first byte
};

// Threads of XLA's pool that share a piece of work. Whoever leaves last frees it: a task may begin
// after the work is done, and then finds it closed.
struct Team {
  void (*work)(void*);
  void* data;
  unsigned members, working = 0;
  bool closed = false;
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t idle = PTHREAD_COND_INITIALIZER;

  // Unlock, and free the memory if this was the last member.
  void leave() {
    bool last = --members == 0;
    pthread_mutex_unlock(&mutex);
    if (last) free(this);
  }
};

void help(void* argument) {
  Team* team = static_cast<Team*>(argument);
  pthread_mutex_lock(&team->mutex);
  if (!team->closed) {
    ++team->working;
    pthread_mutex_unlock(&team->mutex);
    team->work(team->data);
    pthread_mutex_lock(&team->mutex);
    if (--team->working == 0) pthread_cond_signal(&team->idle);
  }
  team->leave();
}

thread_local const XLA_FFI_CallFrame* current;

void discard(XLA_FFI_Error* error) {
  XLA_FFI_Error_Destroy_Args args = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, nullptr, error};
  if (error) current->api->XLA_FFI_Error_Destroy(&args);
}

// Run work(data) here and on tasks that XLA's pool begins meanwhile. Wait for those that have
// begun, not for all: the pool may be full of callers that wait likewise.
void parallel(void (*work)(void*), void* data, unsigned threads, unsigned) {
  Team* team = static_cast<Team*>(malloc(sizeof(Team)));
  if (!team) return work(data);
  *team = Team{work, data, threads};
  for (unsigned task = 1; task < threads; ++task) {
    XLA_FFI_ThreadPool_Schedule_Args args = {XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, nullptr, current->ctx, help, team};
    if (XLA_FFI_Error* error = current->api->XLA_FFI_ThreadPool_Schedule(&args)) {
      discard(error);
      help(team);
    }
  }
  work(data);
  pthread_mutex_lock(&team->mutex);
  team->closed = true;
  while (team->working) pthread_cond_wait(&team->idle, &team->mutex);
  team->leave();
}

unsigned pool_size() {
  int64_t size = 1;
  XLA_FFI_ThreadPool_NumThreads_Args args = {XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, nullptr, current->ctx, &size};
  discard(current->api->XLA_FFI_ThreadPool_NumThreads(&args));
  return static_cast<unsigned>(size < 1 ? 1 : size);
}

void* memory(void* buffer) { return static_cast<XLA_FFI_Buffer*>(buffer)->data; }

XLA_FFI_Error* failure(const XLA_FFI_Api* api, const char* message, XLA_FFI_Error_Code code) {
  XLA_FFI_Error_Create_Args args = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, nullptr, message, code};
  return api->XLA_FFI_Error_Create(&args);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) XLA_FFI_Error* acon_xla(XLA_FFI_CallFrame* frame) {
  if (frame->extension_start && frame->extension_start->type == XLA_FFI_Extension_Metadata) {
    // A question for our version. Minor versions keep the layout of what is used here, so the answer
    // is the caller's own; jaxlib 0.8, of version 0.1, asks without its interface.
    XLA_FFI_Metadata* metadata = reinterpret_cast<XLA_FFI_Metadata_Extension*>(frame->extension_start)->metadata;
    metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    metadata->api_version.minor_version = frame->api ? frame->api->api_version.minor_version : 1;
    metadata->traits = 0;
    return nullptr;
  }
  const XLA_FFI_Array* attribute = static_cast<XLA_FFI_Array*>(frame->attrs.attrs[0]);
  if (attribute->size * sizeof(int64_t) != sizeof(Call))
    return failure(frame->api, "acon-kernels: unexpected size of the attribute plan", XLA_FFI_Error_Code_INVALID_ARGUMENT);
  const Call* call = static_cast<const Call*>(attribute->data);
  void **operand = frame->args.args, **result = frame->rets.rets;
  const void *x = memory(*operand++), *gates[4];
  void *out = memory(*result++), *dgates[4] = {};
  for (int k = 0; k < 4; ++k) gates[k] = call->arrays >> k & 1 ? memory(*operand++) : &call->constants[k];
  const void* g = nullptr;
  if (operand != frame->args.args + frame->args.size) {
    g = memory(*operand);
    for (int k = 0; k < 4; ++k)
      if (call->arrays >> k & 1) dgates[k] = memory(*result++);
  }
  current = frame;
  int code = acon_apply(&call->plan, x, g, gates, out, dgates, pool_size(), parallel);
  if (code == 1) return failure(frame->api, "acon-kernels: no memory for partial sums", XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);
  if (code) return failure(frame->api, "acon-kernels refused a plan; set ACON_KERNELS=0 and report this", XLA_FFI_Error_Code_INTERNAL);
  return nullptr;
}
