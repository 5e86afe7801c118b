// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/selection.h"

namespace meander::checkpoint {

Status visit_each(const Records& records, const RecordVisitor& visit) {
  std::size_t used = 0;
  for (std::size_t i = 0; i < records.size(); ++i) {
    Record record{
        records.keys[i], records.steps[i], records.counts[i], records.admitted[i] == 1, {}};
    if (record.admitted) {
      record.values = records.values.subspan(used, records.width);
      used += records.width;
    }
    RETURN_IF_ERROR(visit(record));
  }
  return {};
}

Records Selection::copy_kept(const Records& records) {
  keys_.clear();
  steps_.clear();
  counts_.clear();
  admitted_.clear();
  values_.clear();
  const float* values = records.values.data();
  for (std::size_t i = 0; i < records.size(); ++i) {
    const float* next = values + (records.admitted[i] == 1 ? records.width : 0);
    if (kept_[i]) {
      keys_.push_back(records.keys[i]);
      steps_.push_back(records.steps[i]);
      counts_.push_back(records.counts[i]);
      admitted_.push_back(records.admitted[i]);
      values_.insert(values_.end(), values, next);
    }
    values = next;
  }
  return {keys_, steps_, counts_, admitted_, values_, records.width};
}

}  // namespace meander::checkpoint
