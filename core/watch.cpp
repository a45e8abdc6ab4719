// WriteGuard. Dense tensors count by their storage, boxes by themselves, views by their base.
#include <tutti/core/watch.h>

namespace tutti {

namespace {
const TensorImpl& root(const Tensor& x) {
  const TensorImpl* r = x.impl();
  while (r->view) r = r->view->base.impl();
  return *r;
}
}  // namespace

const void* WriteGuard::key(const TensorImpl& x) {
  if (x.kind == TensorImpl::Kind::box || !x.storage) return &x;
  return x.storage.get();
}

WriteGuard::WriteGuard(const char* op, const char* whose, const char* instead, const Tensors* only)
    : op_(op),
      whose_(whose),
      instead_(instead),
      level_(thread_state().current),
      outer_(thread_state().watch),
      all_(!only) {
  if (only)
    for (const Tensor& x : *only)
      if (x.defined()) guarded_.insert(key(root(x)));
  thread_state().watch = this;
}

void WriteGuard::uses(Inputs in) {
  if (outer_) outer_->uses(in);
  if (thread_state().current == level_) note(in);
}

void WriteGuard::writes(const Tensor& dst) {
  if (outer_) outer_->writes(dst);
  if (thread_state().current != level_) return;
  const void* k = key(root(dst));
  check<TransformError>(all_ ? made_.count(k) > 0 : guarded_.count(k) == 0, op_, whose_,
                        " changes a tensor of shape ", dst.sizes(),
                        " in place that it did not make; ", instead_);
}

void WriteGuard::made(const void* p) {
  if (outer_) outer_->made(p);
  if (all_) made_.insert(p);
}

}  // namespace tutti
